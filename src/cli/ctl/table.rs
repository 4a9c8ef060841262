//! Text in columns.

/// Rows of cells; columns are as wide as their widest cell.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Vec<String>>);

impl Table {
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.into());
    }

    pub(super) fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| self.0.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}", printable(cell)));
            format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        self.0.iter().map(line).collect()
    }
}

/// User names come from strangers: nothing in them moves the cursor.
pub(super) fn printable(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_harmless() {
        let mut table = Table::default();
        table.row(["ID", "USER", "BY"].map(str::to_owned));
        table.row(["1", "zoë\u{1b}[2J", "udp"].map(str::to_owned));
        assert_eq!(table.text(), "ID  USER     BY\n1   zoë\u{FFFD}[2J  udp\n");
        assert_eq!(Table::default().text(), "");
    }
}
