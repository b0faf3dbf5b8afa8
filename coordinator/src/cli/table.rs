//! Tables and lists for people.

use std::fmt::Write as _;

/// Rows under a head, in aligned columns.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|h| h.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|h| h.to_uppercase()).collect();
    let mut out = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a string can't fail.
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

/// Names and values, one a line.
pub(super) fn list(entries: &[(&str, String)]) -> String {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    entries.iter().fold(String::new(), |mut out, (name, value)| {
        let _ = writeln!(out, "{name:<width$}  {value}");
        out
    })
}

/// A value, or a dash where there is none.
pub(super) fn or_dash(value: impl Into<Option<String>>) -> String {
    value.into().filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let rows = vec![vec!["robot-7".into(), "up".into()], vec!["r".into(), String::new()]];
        assert_eq!(table(&["name", "state"], &rows), "NAME     STATE\nrobot-7  up\nr\n");
        assert_eq!(list(&[("id", "a".into()), ("name", "b".into())]), "id    a\nname  b\n");
    }
}
