//! The scenarios inside the binary, so that `apply year1` works from an empty folder.

/// A scenario that ships with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    /// The file's name, such as `year1.yaml`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($file:literal),+ $(,)?) => {
        /// Every shipped scenario that needs no file but those in this list.
        pub const SHIPPED: &[Shipped] = &[
            $(Shipped { file: $file, text: include_str!(concat!("../../scenarios/", $file)) }),+
        ];
    };
}

shipped!(
    "year1.yaml",
    "year1-full.yaml",
    "year2.yaml",
    "year3.yaml",
    "sweep.yaml",
    "faults.yaml",
    "kv-pressure.yaml",
    "speculation.yaml",
    "prefix-sharing.yaml",
    "overload.yaml",
    "capacity.yaml",
    "hook-prompt.yaml",
    "structured-output.yaml",
    "quality-gate.yaml",
    "custom-metric.yaml",
    "chat-sessions.yaml",
    "mixture.yaml",
    "migration.yaml",
    "soak.yaml",
    "impatient.yaml",
    "agent.yaml",
    "tenants.yaml",
    "search.yaml",
    "interference.yaml",
    "vllm.yaml",
    "sglang.yaml",
    "lmdeploy.yaml",
    "llamacpp.yaml"
);

impl Shipped {
    /// The shipped scenario of this name: `year1`, or with its ending.
    pub fn named(name: &str) -> Option<&'static Self> {
        SHIPPED.iter().find(|shipped| shipped.file == name || shipped.name() == name)
    }

    /// The file's name without its ending.
    pub fn name(&self) -> &'static str {
        self.file.split_once('.').map_or(self.file, |(name, _)| name)
    }
}
