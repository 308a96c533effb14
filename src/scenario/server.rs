//! What no schema can say of a backend that is a server.

use super::check::{Part, below};
use super::diagnostic::{Diagnostic, quote};
use crate::backend::config::{Backend, Flavor, OpenAiBackend, Url};

impl Part<'_> {
    /// Checks a server's settings.
    pub fn server(&mut self, backend: &Backend) {
        let Some((server, _)) = backend.server() else { return };
        self.urls(server);
        if backend.kind() != "openai" && server.flavor != Flavor::Auto {
            let kind = backend.kind();
            let diagnostic = Diagnostic::error(
                below(self.node, "flavor").1,
                format!("`kind: {kind}` is a flavor already"),
            )
            .help("remove `flavor`, or write `kind: openai`");
            self.report(diagnostic);
        }
        self.above_zero("connect_timeout", Some(server.connect_timeout.0 > 0));
        if server.insecure && server.ca.is_some() {
            let diagnostic = Diagnostic::error(
                below(self.node, "insecure").1,
                "`insecure: true` checks no certificate, and `ca` names those to check with",
            )
            .help("remove one of them");
            self.report(diagnostic);
        }
        self.secrets(server);
        if server.extra.get("n").is_some_and(|n| *n != 1) {
            self.at(&["extra", "n"]).wrong("one answer is measured per request; `n` can only be 1");
        }
    }

    fn urls(&mut self, server: &OpenAiBackend) {
        let is_list = self.at(&["base_url", "0"]).node.is_some();
        for (index, text) in server.base_url.0.iter().enumerate() {
            let Err(why) = Url::parse_base(text) else { continue };
            let index = index.to_string();
            let path: &[&str] = if is_list { &["base_url", &index] } else { &["base_url"] };
            self.at(path).wrong(format!("{} is no base URL: {why}", quote(text)));
        }
    }

    /// Keys are named and never written: what a scenario says stands in reports.
    fn secrets(&mut self, server: &OpenAiBackend) {
        for name in server.headers.keys() {
            let legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(legal) {
                let diagnostic = Diagnostic::error(
                    self.at(&["headers", name]).key_span(),
                    format!("{} is no name of a header", quote(name)),
                );
                self.report(diagnostic);
            }
            if ["authorization", "proxy-authorization", "api-key", "x-api-key"]
                .contains(&name.to_lowercase().as_str())
            {
                let diagnostic = Diagnostic::error(
                    self.at(&["headers", name]).key_span(),
                    "a key in a scenario would stand in every report",
                )
                .help("put it into an environment variable and name that in `api_key_env`");
                self.report(diagnostic);
            }
        }
        let Some(variable) = &server.api_key_env else { return };
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if variable.is_empty()
            || !variable.chars().all(legal)
            || variable.starts_with(|c: char| c.is_ascii_digit())
        {
            // The text is not repeated: it may be the key.
            let diagnostic = Diagnostic::error(self.at(&["api_key_env"]).key_span(), "`api_key_env` is not the name of a variable")
                .note("it names the environment variable that holds the key, such as OPENAI_API_KEY; it is not the key");
            self.report(diagnostic);
        }
    }
}
