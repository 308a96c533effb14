//! A server's own counters, read from its metrics pages before, during and after a cell.
//!
//! The pages are Prometheus' text format. What is read are sums over all labels (of shares: the largest), under the names
//! that each server gives them, with and without `_total`.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ask::Asker;
use crate::backend::{CACHE_METRICS, EngineStats, MEMORY_METRICS};

/// How often the pages are read during a cell.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Queried,
    Hit,
    Preempted,
    Drafted,
    Accepted,
    /// Share of drafts that are accepted.
    AcceptShare,
    /// Share of the KV cache in use.
    KvShare,
    KvUsed,
    KvCapacity,
}

const QUANTITIES: usize = Quantity::KvCapacity as usize + 1;

use Quantity::{AcceptShare, Accepted, Drafted, Hit, KvCapacity, KvShare, KvUsed, Preempted, Queried};

/// Names without `_total`, and what they mean. A page of one server has those of no other.
const NAMES: [(&str, Quantity); 27] = [
    ("vllm:prefix_cache_queries", Queried),
    ("vllm:gpu_prefix_cache_queries", Queried),
    ("vllm:prefix_cache_hits", Hit),
    ("vllm:gpu_prefix_cache_hits", Hit),
    ("vllm:num_preemptions", Preempted),
    ("vllm:spec_decode_num_draft_tokens", Drafted),
    ("vllm:spec_decode_num_accepted_tokens", Accepted),
    ("vllm:kv_cache_usage_perc", KvShare),
    ("vllm:gpu_cache_usage_perc", KvShare),
    ("sglang:prompt_tokens", Queried),
    ("sglang:cached_tokens", Hit),
    ("sglang:num_retracted_reqs", Preempted),
    ("sglang:num_retracted_requests", Preempted),
    ("sglang:spec_accept_rate", AcceptShare),
    ("sglang:token_usage", KvShare),
    ("sglang:num_used_tokens", KvUsed),
    ("sglang:max_total_num_tokens", KvCapacity),
    ("lmdeploy:prefix_cache_queries", Queried),
    ("lmdeploy:prefix_cache_hits", Hit),
    ("lmdeploy:num_preemptions", Preempted),
    ("lmdeploy:spec_decode_num_draft_tokens", Drafted),
    ("lmdeploy:spec_decode_num_accepted_tokens", Accepted),
    ("lmdeploy:gpu_cache_usage_perc", KvShare),
    ("llamacpp:kv_cache_usage_ratio", KvShare),
    ("llamacpp:kv_cache_tokens", KvUsed),
    ("llamacpp:spec_decode_num_draft_tokens", Drafted),
    ("llamacpp:spec_decode_num_accepted_tokens", Accepted),
];

/// What a page, or several together, said at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Page([Option<f64>; QUANTITIES]);

impl Page {
    /// Reads a page. Lines that are none of interest, or no lines of this format, are passed over.
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            let Some((name, labels, value)) = sample(line) else { continue };
            if let Some(capacity) = capacity(name, labels) {
                page.add(KvCapacity, capacity);
            }
            let plain = name.strip_suffix("_total").unwrap_or(name);
            if let Some((_, quantity)) = NAMES.iter().find(|(known, _)| *known == plain) {
                page.add(*quantity, value);
            }
        }
        page
    }

    fn add(&mut self, quantity: Quantity, value: f64) {
        let own = &mut self.0[quantity as usize];
        let is_share = matches!(quantity, AcceptShare | KvShare);
        *own = Some(own.map_or(value, |own| if is_share { own.max(value) } else { own + value }));
    }

    fn join(&mut self, other: &Self) {
        for (quantity, value) in ALL.into_iter().zip(other.0) {
            if let Some(value) = value {
                self.add(quantity, value);
            }
        }
    }

    fn get(&self, quantity: Quantity) -> Option<f64> {
        self.0[quantity as usize]
    }
}

const ALL: [Quantity; QUANTITIES] =
    [Queried, Hit, Preempted, Drafted, Accepted, AcceptShare, KvShare, KvUsed, KvCapacity];

/// The names on a page that are read, each once, in the order of the page.
pub(super) fn known_names(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (name, labels, _) in page.lines().filter_map(sample) {
        let plain = name.strip_suffix("_total").unwrap_or(name);
        let is_known = NAMES.iter().any(|(known, _)| *known == plain) || capacity(name, labels).is_some();
        if is_known && !found.iter().any(|other| other == name) {
            found.push(name.to_owned());
        }
    }
    found
}

/// The name, the labels and the value of a sample's line.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = if let Some((name, rest)) = line.split_once('{') {
        let (labels, rest) = rest.rsplit_once('}')?;
        (name, labels, rest)
    } else {
        let (name, rest) = line.split_once(' ')?;
        (name, "", rest)
    };
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name.trim(), labels, value))
}

/// The tokens that fit into the cache, from the labels of vLLM's settings.
fn capacity(name: &str, labels: &str) -> Option<f64> {
    if name != "vllm:cache_config_info" {
        return None;
    }
    let label = |key: &str| -> Option<f64> {
        let mut parts = labels.split(',').filter_map(|part| part.trim().split_once('='));
        parts.find(|(name, _)| *name == key)?.1.trim_matches('"').parse().ok()
    };
    Some(label("num_gpu_blocks")? * label("block_size")?)
}

/// The pages of a cell over time.
#[derive(Debug, Default)]
struct History {
    first: Option<Page>,
    last: Page,
    /// The largest share of the cache in use, and the most tokens.
    kv_share: Option<f64>,
    kv_used: Option<f64>,
    accept_share: (f64, u32),
    trouble: Option<String>,
}

impl History {
    fn take(&mut self, page: Result<Page, String>) {
        match page {
            Ok(page) => {
                self.first.get_or_insert(page);
                self.last = page;
                let most = |old: Option<f64>, new: Option<f64>| old.into_iter().chain(new).reduce(f64::max);
                self.kv_share = most(self.kv_share, page.get(KvShare));
                self.kv_used = most(self.kv_used, page.get(KvUsed));
                if let Some(share) = page.get(AcceptShare) {
                    self.accept_share = (self.accept_share.0 + share, self.accept_share.1 + 1);
                }
            }
            Err(why) => {
                self.trouble.get_or_insert(why);
            }
        }
    }

    /// What a counter rose by, or why that is not known.
    fn rise(&self, quantity: Quantity) -> Result<u64, String> {
        let none = || "the server does not export it".to_owned();
        let first = self.first.as_ref().and_then(|page| page.get(quantity)).ok_or_else(none)?;
        let last = self.last.get(quantity).ok_or_else(none)?;
        if last < first {
            return Err("the server's counters began again during the run".into());
        }
        Ok(libm::round(last - first) as u64)
    }

    /// What the server says of itself over the cell.
    fn stats(&self) -> EngineStats {
        let mut stats = EngineStats::default();
        if let Some(trouble) = &self.trouble {
            stats.unavailable = unavailable(trouble);
            return stats;
        }
        let mut missing: Vec<(&'static str, String)> = Vec::new();
        let mut keep = |name: &'static str, value: Result<u64, String>| {
            value.map_err(|why| missing.push((name, why))).ok()
        };
        stats.prefix_queried_tokens = keep("prefix_hit_rate", self.rise(Queried));
        stats.prefix_hit_tokens = keep("prefix_hit_rate", self.rise(Hit));
        stats.preempt_count = keep("preempt_count", self.rise(Preempted));
        let whole = |value: Option<f64>| {
            value
                .map(|value| libm::round(value) as u64)
                .ok_or_else(|| "the server does not export it".to_owned())
        };
        let capacity = self.last.get(KvCapacity);
        stats.kv_capacity_tokens = keep("kv_capacity_tokens", whole(capacity));
        let used = self.kv_used.or_else(|| Some(self.kv_share? * capacity?));
        let of_share = "the server exports the share of its cache in use, and not its size";
        let no_size = self.kv_share.is_some() && capacity.is_none();
        let used = whole(used).map_err(|why| if no_size { of_share.to_owned() } else { why });
        stats.kv_used_tokens = keep("kv_used_tokens", used);
        match (self.rise(Drafted), self.rise(Accepted), self.accept_share) {
            (Ok(drafted), Ok(accepted), _) => {
                (stats.draft_tokens, stats.accepted_tokens) = (Some(drafted), Some(accepted));
            }
            (_, _, (sum, count)) if count > 0 => stats.spec_accept_share = Some(sum / f64::from(count)),
            (Err(why), ..) | (_, Err(why), _) => missing.push(("spec_accept_rate", why)),
        }
        let never = "servers do not export it";
        for name in ["kv_used_bytes", "kv_total_tokens", "evict_count", "evict_ms"] {
            missing.push((name, never.into()));
        }
        stats.unavailable = missing.into_iter().map(|(name, why)| (name.into(), why)).collect();
        stats.unavailable.extend(memory_unavailable());
        stats
    }
}

/// Everything that a server would know, and why it is not known.
pub(super) fn unavailable(reason: &str) -> Vec<(std::borrow::Cow<'static, str>, String)> {
    let names = CACHE_METRICS.into_iter().chain(["spec_accept_rate"]);
    let own = names.map(|name| (name.into(), reason.to_owned()));
    own.chain(memory_unavailable()).collect()
}

/// Memory is measured only of a server that this program started.
fn memory_unavailable() -> impl Iterator<Item = (std::borrow::Cow<'static, str>, String)> {
    let reason = "the memory of a server is known only where `launch` starts it";
    MEMORY_METRICS.into_iter().map(move |name| (name.into(), reason.to_owned()))
}

enum Told {
    /// Count from here, and say when the pages are read.
    Begin(Sender<()>),
    End,
}

/// A thread that reads the pages.
pub(super) struct Scraper {
    tell: Option<Sender<Told>>,
    heard: Receiver<EngineStats>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    /// Reads all pages of the asker that `make` makes on the thread. With `optional`, pages that are not there leave
    /// everything unknown; else that is an error.
    ///
    /// # Errors
    /// Why a page that is asked for can not be read.
    pub(super) fn start(
        make: impl FnOnce() -> std::io::Result<Asker> + Send + 'static,
        optional: bool,
    ) -> Result<Option<Self>, String> {
        let (tell, told) = channel();
        let (speak, heard) = channel();
        let (report, ready) = channel();
        let failed = |error: std::io::Error| format!("no thread can be started: {error}");
        let watch = move || {
            let asker = match make().map_err(failed).and_then(|asker| read(&asker).map(|_| asker)) {
                Ok(asker) => asker,
                Err(why) => {
                    // Who started the thread waits for this.
                    let _ = report.send(Err(why));
                    return;
                }
            };
            let _ = report.send(Ok(()));
            while let Ok(Told::Begin(begun)) = told.recv() {
                if !watch(&asker, &told, &begun, &speak) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(watch).map_err(failed)?;
        let scraper = Self { tell: Some(tell), heard, thread: Some(thread) };
        match ready.recv() {
            Ok(Ok(())) => Ok(Some(scraper)),
            Ok(Err(_)) if optional => Ok(None),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("the thread that reads the server's counters died".into()),
        }
    }

    /// What is told at the end counts from here. With `wait` it returns when the pages are read, so that nothing that
    /// is sent afterwards stands in them; during a run nobody can wait.
    pub(super) fn begin(&self, wait: bool) {
        let (begun, is_read) = channel();
        // A thread that is gone is noticed at the end.
        let told = self.tell.as_ref().is_some_and(|tell| tell.send(Told::Begin(begun)).is_ok());
        if told && wait {
            let _ = is_read.recv();
        }
    }

    /// What the server says of itself since [`Self::begin`].
    pub(super) fn end(&self) -> EngineStats {
        let told = self.tell.as_ref().is_some_and(|tell| tell.send(Told::End).is_ok());
        let heard = if told { self.heard.recv().ok() } else { None };
        heard.unwrap_or_else(|| EngineStats {
            unavailable: unavailable("the thread that reads the server's counters died"),
            ..EngineStats::default()
        })
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.tell = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads the pages until it is told that the cell is over. Whether to go on after that.
fn watch(asker: &Asker, told: &Receiver<Told>, begun: &Sender<()>, speak: &Sender<EngineStats>) -> bool {
    let mut history = History::default();
    history.take(read(asker));
    // Mostly nobody waits.
    let _ = begun.send(());
    loop {
        match told.recv_timeout(INTERVAL) {
            Err(RecvTimeoutError::Timeout) => history.take(read(asker)),
            Ok(Told::Begin(begun)) => {
                history = History::default();
                history.take(read(asker));
                let _ = begun.send(());
            }
            Ok(Told::End) => {
                history.take(read(asker));
                return speak.send(history.stats()).is_ok();
            }
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

fn read(asker: &Asker) -> Result<Page, String> {
    let mut all = Page::default();
    for (server, url) in asker.urls().iter().enumerate() {
        let reply = asker.get(server, "")?;
        if !reply.is_success() {
            return Err(format!("the metrics page {url} answers {}", reply.status));
        }
        all.join(&Page::parse(&String::from_utf8_lossy(&reply.body)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(before: &str, during: &str, after: &str) -> EngineStats {
        let mut history = History::default();
        for text in [before, during, after] {
            history.take(Ok(Page::parse(text)));
        }
        history.stats()
    }

    #[test]
    fn counters_are_differences_and_shares_are_peaks() {
        let page = |hits: u32, queries: u32, usage: f64| {
            format!(
                "# HELP vllm:prefix_cache_hits_total x\n# TYPE vllm:prefix_cache_hits_total counter\n\
                 vllm:prefix_cache_hits_total{{engine=\"0\",model_name=\"m\"}} {hits}.0\n\
                 vllm:prefix_cache_hits_total{{engine=\"1\",model_name=\"m\"}} 1.0\n\
                 vllm:prefix_cache_queries_total{{engine=\"0\"}} {queries}\n\
                 vllm:kv_cache_usage_perc{{engine=\"0\"}} {usage}\n\
                 vllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"100\",x=\"None\"}} 1.0\n"
            )
        };
        let stats = told(&page(10, 100, 0.0), &page(20, 200, 0.5), &page(40, 300, 0.25));
        assert_eq!((stats.prefix_hit_tokens, stats.prefix_queried_tokens), (Some(30), Some(200)));
        assert_eq!((stats.kv_used_tokens, stats.kv_capacity_tokens), (Some(800), Some(1600)));
        let missing: Vec<&str> = stats.unavailable.iter().map(|(name, _)| name.as_ref()).collect();
        assert!(missing.contains(&"preempt_count") && missing.contains(&"spec_accept_rate"), "{missing:?}");
    }

    #[test]
    fn counters_that_begin_again_are_not_known() {
        let stats = told("vllm:num_preemptions 5\n", "", "vllm:num_preemptions 2\n");
        assert_eq!(stats.preempt_count, None);
        let why = stats.unavailable.iter().find(|(name, _)| name == "preempt_count").unwrap();
        assert!(why.1.contains("began again"), "{}", why.1);
    }

    #[test]
    fn a_share_without_a_size_is_no_number_of_tokens() {
        let stats = told("", "lmdeploy:gpu_cache_usage_perc 0.5\n", "");
        let why = stats.unavailable.iter().find(|(name, _)| name == "kv_used_tokens").unwrap();
        assert!(stats.kv_used_tokens.is_none() && why.1.contains("not its size"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: String) {
            Page::parse(&text);
        }
    }
}
