//! What the mock's answers say: words that mean nothing, or a text that the scenario gives.
//!
//! A text is a pure function of the seed, the request and how many tokens of it came out.

use std::borrow::Cow;

use super::fault::hits;
use crate::backend::config::{MockResponse, RequestMatch};
use crate::plan::Recipe;
use crate::record::{Outcome, Response};
use crate::sample::key;
use crate::tokenizer::{self, Tokenizer as _};

/// Keeps the draws of responses apart from those of faults, and the texts of answers from those of prompts.
const ANSWER: u64 = 0x616e_7377_6572;

/// The answers to the requests of one cell. The engine plays their lengths; whoever puts it behind a wire asks here too,
/// for the texts as they come out.
#[derive(Debug)]
pub struct Answers {
    /// For each workload, the texts that the scenario gives for it, each with its number in the scenario.
    given: Vec<Vec<Given>>,
    seed: u64,
    kept: bool,
}

#[derive(Debug)]
struct Given {
    number: u64,
    matches: RequestMatch,
    text: String,
    tokens: u32,
}

impl Answers {
    /// The answers for the workload `family`. `seed` is the scenario's: it decides draws.
    pub fn new(responses: &[MockResponse], family: &str, seed: u64) -> Self {
        Self::group(responses, &[family], seed)
    }

    /// The answers for several workloads at once, in the order of [`Recipe::lane`].
    pub fn group(responses: &[MockResponse], families: &[&str], seed: u64) -> Self {
        let of = |family: &&str| {
            let given = (0..).zip(responses).filter_map(|(number, response)| {
                let matches = response.matches.clone().unwrap_or_default();
                let here = matches.workload.as_deref().is_none_or(|name| name == *family);
                let tokens = tokenizer::Mock.count(&response.text);
                here.then(|| Given { number, matches, text: response.text.clone(), tokens })
            });
            given.collect()
        };
        Self { given: families.iter().map(of).collect(), seed, kept: false }
    }

    /// Responses are told from now on.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// Whether responses are told.
    pub(super) fn are_kept(&self) -> bool {
        self.kept
    }

    fn given(&self, recipe: &Recipe) -> Option<&Given> {
        let (draws, prompt) = (key(&[self.seed, ANSWER]), recipe.prompt.tokens());
        let own = self.given.get(recipe.lane as usize)?;
        own.iter()
            .find(|given| hits(&given.matches, (recipe.index, recipe.attempt), prompt, [draws, given.number]))
    }

    /// The recipe as the mock plays it: an answer that may end by itself is no longer than its text.
    pub fn own(&self, recipe: &Recipe) -> Recipe {
        let mut own = recipe.clone();
        if let Some(given) = self.given(recipe).filter(|_| !recipe.forced) {
            own.output_tokens = own.output_tokens.min(given.tokens);
        }
        own
    }

    /// What a success says: the recipe is the mock's own, whose length is the answer's.
    pub(super) fn response(&self, recipe: &Recipe, outcome: Outcome) -> Option<Box<Response>> {
        (self.kept && outcome == Outcome::Success).then(|| Box::new(self.whole(recipe)))
    }

    /// The whole answer to a request: the recipe is the mock's own, whose length is the answer's.
    pub fn whole(&self, recipe: &Recipe) -> Response {
        let tokens = recipe.output_tokens;
        let words = |tokens| tokenizer::Mock.text_of(tokens, key(&[recipe.seed, ANSWER]));
        let (text, reason) = match self.given(recipe) {
            None => (words(tokens), "length"),
            Some(given) if tokens < given.tokens => (first_tokens(&given.text, tokens), "length"),
            Some(given) if tokens == given.tokens => {
                (given.text.clone(), if recipe.forced { "length" } else { "stop" })
            }
            Some(given) => (format!("{} {}", given.text, words(tokens - given.tokens)), "length"),
        };
        Response { text, finish_reason: Some(Cow::Borrowed(reason)) }
    }
}

fn first_tokens(text: &str, tokens: u32) -> String {
    tokenizer::Mock::pieces(text).take(tokens as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::mock::fixed::tests::recipe;

    fn told(responses: &[MockResponse], recipe: &Recipe) -> (u32, String, String) {
        let mut answers = Answers::new(responses, "chat", 1);
        assert_eq!(answers.response(recipe, Outcome::Success), None, "nobody looks at it");
        answers.keep();
        let own = answers.own(recipe);
        assert_eq!(answers.response(&own, Outcome::Disconnected), None);
        let response = answers.response(&own, Outcome::Success).unwrap();
        (own.output_tokens, response.text, response.finish_reason.unwrap().into_owned())
    }

    fn given(text: &str, matches: Option<RequestMatch>) -> MockResponse {
        MockResponse { matches, text: text.into() }
    }

    #[test]
    fn invented_words_are_as_many_as_asked_for_and_differ_by_request() {
        let first = told(&[], &recipe(0, 4, 7));
        let second = told(&[], &recipe(1, 4, 7));
        assert_eq!((first.0, first.2.as_str()), (7, "length"));
        assert_eq!(tokenizer::Mock.count(&first.1), 7);
        assert_ne!(first.1, second.1);
        assert!(told(&[], &recipe(0, 4, 9)).1.starts_with(&first.1), "the same request goes on the same way");
        assert_ne!(first.1, tokenizer::Mock.text_of(7, recipe(0, 4, 7).seed), "an answer repeats no prompt");
    }

    #[test]
    fn a_given_text_ends_by_itself_or_is_cut_off_at_the_limit() {
        let json = [given(r#"{"city": "Paris"}"#, None)];
        let limited = |tokens| told(&json, &Recipe { forced: false, ..recipe(0, 4, tokens) });
        let (tokens, text, reason) = limited(64);
        assert_eq!((text.as_str(), reason.as_str()), (r#"{"city": "Paris"}"#, "stop"));
        assert_eq!(tokens, tokenizer::Mock.count(&text));
        assert_eq!(limited(3), (3, r#"{"city"#.into(), "length".into()));
    }

    #[test]
    fn a_forced_length_cuts_a_text_off_or_makes_it_go_on() {
        let yes = [given("yes", None)];
        let (tokens, text, reason) = told(&yes, &recipe(0, 4, 5));
        assert_eq!((tokens, reason.as_str(), tokenizer::Mock.count(&text)), (5, "length", 5));
        assert!(text.starts_with("yes "), "{text}");
        assert_eq!(told(&yes, &recipe(0, 4, 1)), (1, "yes".into(), "length".into()));
    }

    #[test]
    fn the_first_text_that_matches_answers() {
        let second = RequestMatch { every: Some(2), ..RequestMatch::default() };
        let other = RequestMatch { workload: Some("batch".into()), ..RequestMatch::default() };
        let texts = [given("odd", Some(second)), given("never", Some(other)), given("rest", None)];
        let said = |index| told(&texts, &Recipe { forced: false, ..recipe(index, 4, 9) }).1;
        assert_eq!([said(0), said(1), said(2), said(3)], ["rest", "odd", "rest", "odd"]);
    }
}
