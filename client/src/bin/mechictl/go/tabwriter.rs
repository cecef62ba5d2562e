//! Go's `text/tabwriter` with tabs of eight as padding: the layout of the help texts.

const TAB_WIDTH: usize = 8;
const PADDING: usize = 1;

/// Aligns the tab-ended cells of neighbouring lines into columns.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut out = String::new();
    format(&lines, &mut Vec::new(), &mut out);
    // Each line got its end, and the last one had none.
    out.pop();
    out
}

/// A column's block is a run of lines that have one more cell after it; its width holds for the run only.
fn format(lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let mut written = 0;
    let mut line = 0;
    while line < lines.len() {
        if column + 1 >= lines[line].len() {
            line += 1;
            continue;
        }
        write(&lines[written..line], widths, out);
        let end = lines[line..].iter().position(|cells| column + 1 >= cells.len()).map_or(lines.len(), |n| line + n);
        let width = lines[line..end].iter().map(|cells| cells[column].chars().count() + PADDING).max();
        widths.push(width.expect("the run has a line"));
        format(&lines[line..end], widths, out);
        widths.pop();
        line = end;
        written = end;
    }
    write(&lines[written..], widths, out);
}

fn write(lines: &[Vec<&str>], widths: &[usize], out: &mut String) {
    for cells in lines {
        for (n, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(n) {
                let full = width.next_multiple_of(TAB_WIDTH);
                let tabs = (full - cell.chars().count()).div_ceil(TAB_WIDTH);
                out.extend(std::iter::repeat_n('\t', tabs));
            }
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_are_as_wide_as_their_block_needs() {
        let text = "HEAD:\n\tname\tfirst\n\tlonger name\tsecond\n\nb\tx\n";
        assert_eq!(align(text), "HEAD:\n\tname\t\tfirst\n\tlonger name\tsecond\n\nb\tx\n");
    }
}
