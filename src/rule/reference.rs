//! The reference page of the rule language, written from the tables that the parser uses.

use std::fmt::Write as _;

use super::amount::dimension;
use super::names::{AGGREGATES, is_per_request};
use super::{Aggregate, counts_requests, parse};
use crate::generated::row;
use crate::metric::{Better, Kind, METRICS, Metric, TURN, Unit};

/// Rules, and what each asks for.
const EXAMPLES: &[(&str, &str)] = &[
    ("p99(ttft) < 80ms", "99 % of all requests see their first token in less than 80 ms"),
    ("avg(tpot) <= 20ms", "the mean over requests of their time per output token"),
    ("p99.9(e2e) <= 10s", "any percentile between 0 and 100"),
    ("max(tbt) <= 1s", "the longest gap between two tokens of any request"),
    ("error_rate <= 1%", "a share stands bare"),
    ("failed_requests == 0", "a count too, and `==` fits what is counted"),
    ("output_throughput >= 1000tok/s", "a number of the workload as a whole"),
    (
        "share(ttft <= 200ms and tpot <= 20ms) >= 95%",
        "requests that succeeded and keep both limits, of all that are counted",
    ),
    ("check(json) >= 99%", "responses that passed the check `json` of `expect`"),
    ("p95(ttft) < 250ms where turn >= 2", "only later turns of sessions"),
    ("p99(ttft) < 2s where prompt_tokens >= 1000 and output_tokens < 50", "only requests of these lengths"),
    ("error_rate <= 0.1% where tier == gold", "only workloads with the tag `tier: gold`"),
    ("avg(tpot) <= main + 5%", "at most 5 % more than the baseline `main`"),
    ("p99(ttft) <= chat_alone + 20ms", "against another workload of the same run"),
    (
        "output_throughput >= \"vllm-old\" - 5%",
        "against another backend; a name with odd characters stands in quotes",
    ),
    ("p99_ttft_ms < 80", "the name in the result files, which carries its unit"),
    ("peak_mem_mb <= 32768", "likewise"),
];

fn meaning(aggregate: Aggregate) -> &'static str {
    match aggregate {
        Aggregate::Avg => "the arithmetic mean",
        Aggregate::Min => "the smallest value",
        Aggregate::Max => "the largest value",
        Aggregate::Med => "the median: `p50`",
        Aggregate::Stddev => "the sample standard deviation",
        Aggregate::Sum => "the sum",
        Aggregate::Count => "how many values there are: a plain number, whatever the metric's unit",
        Aggregate::Quantile(_) => "the nearest-rank percentile, with decimals where wanted: `p99.9`",
    }
}

/// The kinds of metrics, and what stands above the table of each.
const KINDS: [(Kind, &str, &str); 4] = [
    (
        Kind::Samples,
        "Metrics of requests and tokens",
        "Many values: a rule asks for an aggregate of them, as in `p99(ttft)`.",
    ),
    (Kind::Rate, "Shares", "They stand bare: `error_rate <= 1%`."),
    (Kind::Count, "Counts", "They stand bare: `failed_requests == 0`."),
    (Kind::Value, "Values of the workload as a whole", "They stand bare: `output_throughput >= 1000tok/s`."),
];

const UNITS: [(Unit, &str); 10] = [
    (Unit::Milliseconds, "a time"),
    (Unit::Seconds, "a long time"),
    (Unit::TokensPerSecond, "a rate of tokens"),
    (Unit::RequestsPerSecond, "a rate of requests"),
    (Unit::Ratio, "a share"),
    (Unit::Mebibytes, "memory"),
    (Unit::Bytes, "a size"),
    (Unit::Tokens, "a number of tokens"),
    (Unit::Count, "a count"),
    (Unit::Mean, "a mean of counts"),
];

/// The page in Markdown.
fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| rule | asks for |\n|---|---|\n");
    for (rule, says) in EXAMPLES {
        row(&mut page, [&format!("`{rule}`"), says]);
    }
    page.push_str(GRAMMAR);
    page.push_str("\n## Aggregates\n\n| aggregate | is |\n|---|---|\n");
    for aggregate in AGGREGATES {
        row(&mut page, [&format!("`{aggregate}(metric)`"), meaning(aggregate)]);
    }
    row(&mut page, ["`p99(metric)`", meaning(Aggregate::Quantile(0.99))]);
    let no_data =
        "No value, no number: where nothing was measured, or the backend does not tell, a rule has NO_DATA.";
    let _ = write!(page, "\n{no_data}\n");
    for (kind, title, says) in KINDS {
        let _ = write!(
            page,
            "\n## {title}\n\n{says}\n\n| metric | unit | better | what it is |\n|---|---|---|---|\n"
        );
        METRICS.iter().filter(|metric| metric.kind == kind).for_each(|metric| line(&mut page, metric));
    }
    page.push_str(
        "\nA scenario's own `metrics`, which hooks record, are values of requests: `avg(lines) >= 3`.\n",
    );
    let per_request = METRICS.iter().chain([&TURN]).filter(|metric| is_per_request(metric));
    let names: Vec<String> = per_request.map(|metric| format!("`{}`", metric.name)).collect();
    let counted: Vec<String> = METRICS
        .iter()
        .filter(|metric| counts_requests(metric))
        .map(|metric| format!("`{}`", metric.name))
        .collect();
    let _ = write!(
        page,
        "\n## Conditions\n\nConditions in `where` and `share(..)`, and the limits of `slo`, look at one request: {}, and a scenario's own metrics. `turn`: {}\n\n\
         Aggregates can be narrowed by any condition; of what stands bare only what counts requests can: {}. A condition on a tag chooses whole workloads, and \
         fits every rule.\n",
        names.join(", "),
        TURN.doc,
        counted.join(", ")
    );
    page.push_str("\n## Units\n\nA limit is written with its unit; only counts, tokens, and the names of the result files do without.\n\n");
    page.push_str("| of | units of a limit | in result files |\n|---|---|---|\n");
    for (unit, of) in UNITS {
        let units: Vec<String> = dimension(unit).units.iter().map(|unit| format!("`{unit}`")).collect();
        let units = if units.is_empty() { "a plain number".to_owned() } else { units.join(", ") };
        let suffix = match (unit, unit.suffix()) {
            (Unit::Ratio, _) => "a number from 0 to 1".to_owned(),
            (_, "") => "a plain number".to_owned(),
            (_, suffix) => format!("the name ends in `{suffix}`"),
        };
        row(&mut page, [of, &units, &suffix]);
    }
    page
}

fn line(page: &mut String, metric: &Metric) {
    let names = std::iter::once(metric.name).chain(metric.aliases.iter().copied());
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    let unit = match metric.unit {
        Unit::Count | Unit::Mean => "number",
        other => other.symbol(),
    };
    let better = match metric.better {
        Better::Lower => "lower",
        Better::Higher => "higher",
        Better::Neither => "",
    };
    row(page, [&names.join(", "), unit, better, metric.doc]);
}

const HEAD: &str = "# Rules

A rule says what must hold for a run to pass. Rules stand in `gates: { rules: [..] }`, as a text or as a map with options
([scenario.md](scenario.md#gate-rule)); `slo` is a list of limits that one request must keep to count for goodput. How a rule is judged, and how sure a verdict
is, is in [verdicts.md](verdicts.md).

";

const GRAMMAR: &str = "
```text
rule      = subject , op , limit , [ \"where\" , condition , { \"and\" , condition } ] ;
subject   = aggregate \"(\" metric \")\" | \"share(\" condition , { \"and\" , condition } \")\" | \"check(\" name \")\" | metric ;
limit     = number , [ unit ] | name , [ ( \"+\" | \"-\" ) , number , [ unit | \"%\" ] ] ;
op        = \"<\" | \"<=\" | \">\" | \">=\" | \"==\" | \"!=\" ;
condition = metric , op , number , [ unit ] | tag , ( \"==\" | \"!=\" ) , word ;
```

A limit that is a name refers to a baseline, a workload or a backend. Added to it, `5%` is a share of the value there; where the value is a share itself, it is
points of 100 %. `+` and `-` stand between spaces.
";

#[test]
fn the_page_is_the_one_of_the_tables() {
    crate::generated::is_committed("docs/rules.md", &page());
}

#[test]
fn the_examples_of_the_page_are_rules() {
    for (rule, _) in EXAMPLES {
        assert!(parse(rule).is_ok(), "{rule}: {:?}", parse(rule));
    }
    let shown: usize =
        KINDS.iter().map(|(kind, ..)| METRICS.iter().filter(|metric| metric.kind == *kind).count()).sum();
    assert_eq!(shown, METRICS.len());
}
