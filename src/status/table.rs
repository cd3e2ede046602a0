//! `align`: the columns of a text table.

/// How the cells of a column are aligned.
#[derive(Clone, Copy)]
pub enum Align {
    Left,
    Right,
}

/// The rows as lines. Each column is as wide as its widest cell and separated from the next by
/// two spaces.
pub fn align<const COLUMNS: usize>(
    rows: &[[String; COLUMNS]],
    alignments: [Align; COLUMNS],
) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let cell = |(column, text): (usize, &String)| {
        let width = widths[column];
        match alignments[column] {
            Align::Left => format!("{text:width$}"),
            Align::Right => format!("{text:>width$}"),
        }
    };
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let rows = [["A", "NUMBER", "LAST"], ["long", "1", "x"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let table = align(&rows, [Align::Left, Align::Right, Align::Left]);
        assert_eq!(table, "A     NUMBER  LAST\nlong       1  x\n");
    }
}
