//! Rows and columns, for the terminal and for a page.

use std::fmt::Write as _;

use super::html::escaped;

/// A heading and rows below it. The first column holds names, the others numbers.
#[derive(Debug)]
pub(crate) struct Grid {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// One without rows.
    pub(crate) fn new<const COLUMNS: usize>(heading: [&str; COLUMNS]) -> Self {
        Self { heading: heading.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.heading.len());
        self.rows.push(row);
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lines of aligned columns.
    pub(crate) fn text(&self) -> String {
        let lines = || std::iter::once(&self.heading).chain(&self.rows);
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in lines() {
            let mut cells = line.iter().zip(&widths);
            if let Some((name, width)) = cells.next() {
                let _ = write!(text, "{name:<width$}");
            }
            for (number, width) in cells {
                let _ = write!(text, "  {number:>width$}");
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }

    /// A `<table>`.
    pub(crate) fn html(&self) -> String {
        let row = |cells: &[String], first: &str, others: &str| {
            let mut html = String::from("<tr>");
            for (index, cell) in cells.iter().enumerate() {
                let tag = if index == 0 { first } else { others };
                let _ = write!(html, "<{tag}>{}</{tag}>", escaped(cell));
            }
            html + "</tr>\n"
        };
        let heading = row(&self.heading, "th", "th");
        let rows: String = self.rows.iter().map(|cells| row(cells, "th", "td")).collect();
        format!("<div class=\"wide numbers\"><table>\n{heading}{rows}</table></div>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(["name", "count"]);
        grid.push(vec!["käse".to_owned(), "1".to_owned()]);
        grid.push(vec!["<b>".to_owned(), "1,000,000".to_owned()]);
        grid
    }

    #[test]
    fn aligns_names_left_and_numbers_right() {
        assert_eq!(grid().text(), "name      count\nkäse          1\n<b>   1,000,000\n");
    }

    #[test]
    fn escapes_cells_of_a_page() {
        assert!(grid().html().contains("<tr><th>&lt;b&gt;</th><td>1,000,000</td></tr>"));
    }
}
