//! How the lines of a demo look: pure.

use anstyle::{AnsiColor, Style};

/// What a line tells, as far as its looks depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Heartbeat,
    /// An election under way.
    Vote,
    Executes,
    Accepted,
    Other,
}

/// Tells the kind from the words of the contract's lines.
pub(super) fn kind(line: &str) -> Kind {
    let node_line = line.strip_prefix("Leader ").unwrap_or(line).strip_prefix("Node ");
    let rest = node_line.map(|line| line.trim_start_matches(|letter: char| letter.is_ascii_digit()));
    match rest {
        Some(rest) if rest.starts_with(" sends AppendEntries (Heartbeat) to Node ") => Kind::Heartbeat,
        Some(rest) if rest.starts_with(" runs RPC AppendEntries called by Node ") => Kind::Heartbeat,
        Some(rest) if rest.starts_with(" sends RPC RequestVote to Node ") => Kind::Vote,
        Some(rest) if rest.starts_with(" runs RPC RequestVote called by Node ") => Kind::Vote,
        Some(rest) if rest.starts_with(" executes op=") => Kind::Executes,
        None if line.starts_with("[CLIENT] ") => Kind::Accepted,
        _ => Kind::Other,
    }
}

/// The colours of pods; the first one is the client's and the demo's own.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Red,
];

/// A line with who said it; with `colour`, as a terminal shows colours. A node and its
/// replicator have the same colour, by their `number`.
pub(super) fn render(name: &str, number: u16, line: &str, colour: bool) -> String {
    if !colour {
        return format!("{name} | {line}");
    }
    let prefix = Style::new().fg_color(Some(COLOURS[usize::from(number) % COLOURS.len()].into()));
    let style = match kind(line) {
        Kind::Heartbeat => Style::new().dimmed(),
        Kind::Vote => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Kind::Executes => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Kind::Accepted => Style::new().bold(),
        Kind::Other => Style::new(),
    };
    format!("{prefix}{name} |{prefix:#} {style}{line}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (line, expected) in [
            (
                "Leader Node 2 sends AppendEntries (Heartbeat) to Node 3",
                Kind::Heartbeat,
            ),
            ("Node 3 runs RPC AppendEntries called by Node 2", Kind::Heartbeat),
            ("Node 2 sends RPC RequestVote to Node 3", Kind::Vote),
            ("Node 3 runs RPC RequestVote called by Node 12", Kind::Vote),
            ("Node 2 executes op=operation-1 at index=1", Kind::Executes),
            (
                "Node 2 executes op=Node 1 runs RPC AppendEntries called by Node 2 at index=1",
                Kind::Executes,
            ),
            (
                "[CLIENT] Leader node1:5001 accepted → Operation 'operation-1' committed at index 1",
                Kind::Accepted,
            ),
            (
                "Client sends RPC SubmitClientRequest to Node Cluster Leader.",
                Kind::Other,
            ),
            ("Node 1: commitIndex=1, total entries=1", Kind::Other),
            ("Node 1 sends RPC ReplicateLog to Node q4node1", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
    }

    #[test]
    fn without_colour_a_line_is_prefix_and_line() {
        assert_eq!(
            render("q4node2", 1, "Node 2: commitIndex=1, total entries=1", false),
            "q4node2 | Node 2: commitIndex=1, total entries=1"
        );
    }

    #[test]
    fn heartbeats_are_dimmed_in_colour() {
        let line = "Node 3 runs RPC AppendEntries called by Node 2";
        assert_eq!(
            render("node3", 0, line, true),
            format!("\u{1b}[36mnode3 |\u{1b}[0m \u{1b}[2m{line}\u{1b}[0m")
        );
        let line = "Node 1: commitIndex=1, total entries=1";
        assert_eq!(
            render("node3", 1, line, true),
            format!("\u{1b}[35mnode3 |\u{1b}[0m {line}")
        );
    }
}
