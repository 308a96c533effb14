//! What a hook may use up. Rhai's own defaults differ between builds, so every limit is pinned.

use std::time::Duration;

use rhai::Engine;

/// Operations of one call: about a tenth of a second.
pub const OPERATIONS: u64 = 1_000_000;
/// Functions that call each other.
pub const CALL_LEVELS: usize = 16;
/// Depth of an expression.
pub const EXPRESSION_DEPTH: usize = 48;
/// Bytes of a text, those inside a list or map together.
pub const STRING: usize = 2 << 20;
/// Items of a list, those inside others together.
pub const ARRAY: usize = 20_000;
/// Keys of a map, those inside others together.
pub const MAP: usize = 10_000;
/// Variables of one function.
pub const VARIABLES: usize = 48;
/// Functions of a file.
pub const FUNCTIONS: usize = 256;
/// Files that are imported.
pub const MODULES: usize = 16;
/// Bytes of a file.
pub const FILE: u64 = 256 << 10;
/// The longest one call may take. Operations end a call at the same place on every machine; this only catches the few
/// functions whose operations are long, such as a search through a large text.
pub const TIME: Duration = Duration::from_secs(5);

/// Pins all limits that the engine knows.
pub(super) fn pin(engine: &mut Engine) {
    engine
        .set_max_operations(OPERATIONS)
        .set_max_call_levels(CALL_LEVELS)
        .set_max_expr_depths(EXPRESSION_DEPTH, EXPRESSION_DEPTH)
        .set_max_string_size(STRING)
        .set_max_array_size(ARRAY)
        .set_max_map_size(MAP)
        .set_max_variables(VARIABLES)
        .set_max_functions(FUNCTIONS)
        .set_max_modules(MODULES)
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true);
}
