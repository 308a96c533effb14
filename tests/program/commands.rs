//! What commands print: each `tests/cmd/*.trycmd` is a session. `TRYCMD=overwrite` writes what is expected.

#[test]
fn commands_print_what_they_printed() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}
