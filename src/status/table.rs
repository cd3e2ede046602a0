//! `table`: rows of text in aligned columns.

/// The heads and the rows as lines. Each head starts with the alignment of its column as in a
/// format: `<` left, `>` right. Each column is as wide as its widest cell and separated from the
/// next by two spaces.
pub fn table<const COLUMNS: usize>(
    heads: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> String {
    let mut lines = vec![heads.map(|head| head[1..].to_owned())];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|row| row[column].len()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let cell = |(column, text): (usize, &String)| {
        let width = widths[column];
        if heads[column].starts_with('>') {
            return format!("{text:>width$}");
        }
        format!("{text:width$}")
    };
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

/// The text of a cell: `-` for what is unknown.
pub fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The text of a share, which is given from 0 to 1.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let rows = [["long", "1", "x"].map(str::to_owned)];
        let table = table(["<A", ">NUMBER", "<LAST"], rows.into_iter());
        assert_eq!(table, "A     NUMBER  LAST\nlong       1  x\n");
    }
}
