//! Files that are written from the program's own tables, and the tests that hold them against these.

use std::path::Path;

/// Fails when the file of this repository is not `text`; with `SAGEBENCH_UPDATE_SCHEMAS=1` it is written first.
///
/// # Panics
/// When the file is stale or can not be written.
pub fn is_committed(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("SAGEBENCH_UPDATE_SCHEMAS").is_some() {
        std::fs::create_dir_all(file.parent().expect("a file lies in a folder")).expect("a folder");
        std::fs::write(&file, text).expect("written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == text, "{path} is stale: run the test with SAGEBENCH_UPDATE_SCHEMAS=1");
}

/// A row of a Markdown table. A bar or a line break would end the cell.
pub fn row<const N: usize>(page: &mut String, cells: [&str; N]) {
    for cell in cells {
        page.push_str("| ");
        page.push_str(&cell.replace('|', "\\|").replace('\n', " "));
        page.push(' ');
    }
    page.push_str("|\n");
}
