//! The file: comments and commands out of it, and the file again with what the commands printed.

use anyhow::{Context as _, Result, bail};

/// Starts a line of what was printed that would be taken for something else.
const ESCAPE: char = '\\';

#[derive(Debug, PartialEq)]
pub(super) struct Script {
    title: Vec<String>,
    pub(super) flags: Vec<String>,
    /// Of a cluster; `None` for a single one, with the names and addresses that such a one has.
    pub(super) members: Option<usize>,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Command {
    comment: Vec<String>,
    /// Lines for bash.
    pub(super) lines: Vec<String>,
}

impl Script {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut script = Self { title: Vec::new(), flags: Vec::new(), members: None, commands: Vec::new() };
        let mut comment = Vec::new();
        let mut in_command = false;
        for line in text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                script
                    .commands
                    .push(Command { comment: std::mem::take(&mut comment), lines: vec![command.to_owned()] });
                in_command = true;
                continue;
            }
            if let (true, Some(more), Some(command)) =
                (in_command, strip_continuation(line), script.commands.last_mut())
            {
                command.lines.push(more.to_owned());
                continue;
            }
            in_command = false;
            if line.starts_with('#') {
                comment.push(line.to_owned());
            } else if let Some(flags) = line.strip_prefix("@flags ") {
                script.flags.extend(flags.split_whitespace().map(str::to_owned));
            } else if let Some(members) = line.strip_prefix("@members ") {
                script.members = Some(members.parse().with_context(|| format!("read `{line}`"))?);
            } else if line.is_empty() && script.commands.is_empty() {
                script.title.append(&mut comment);
            }
        }
        if script.commands.is_empty() {
            bail!("no command (`$ ...`) in it");
        }
        if !comment.is_empty() {
            bail!("a comment without a command at the end");
        }
        Ok(script)
    }

    /// The file with this output, one for each command.
    pub(super) fn render(&self, printed: impl Iterator<Item = String>) -> String {
        let mut lines = self.title.clone();
        if !self.flags.is_empty() {
            lines.push(format!("@flags {}", self.flags.join(" ")));
        }
        lines.extend(self.members.map(|members| format!("@members {members}")));
        for (command, output) in self.commands.iter().zip(printed) {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.extend(command.comment.iter().cloned());
            lines.push(format!("$ {}", command.lines[0]));
            lines.extend(command.lines[1..].iter().map(|line| format!("> {line}").trim_end().to_owned()));
            lines.extend(output.lines().map(escaped));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

/// The lines of a file, cut before each command's comment.
pub(super) fn sections(text: &str) -> Vec<Vec<&str>> {
    let mut sections = vec![Vec::new()];
    for line in text.lines() {
        if line.starts_with("$ ") {
            sections.push(Vec::new());
        }
        if let (Some(section), false) = (sections.last_mut(), line.starts_with('#')) {
            section.push(line);
        }
    }
    sections
}

fn strip_continuation(line: &str) -> Option<&str> {
    if line == ">" { Some("") } else { line.strip_prefix("> ") }
}

fn escaped(line: &str) -> String {
    let taken = ["$ ", "> ", "#", "@flags ", "@members "].iter().any(|start| line.starts_with(start)) || line == ">";
    if taken || line.starts_with(ESCAPE) { format!("{ESCAPE}{line}") } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "# Title.\n@flags --a=1 --b\n@members 3\n\n# First.\n$ one\n> more\n>\n1\n\n\\# printed\n\n$ two\n";

    #[test]
    fn renders_what_it_parsed() {
        let script = Script::parse(FILE).unwrap();
        assert_eq!(script.flags, ["--a=1", "--b"]);
        assert_eq!(script.members, Some(3));
        assert_eq!(script.commands[0].lines, ["one", "more", ""]);
        let printed = ["1\n\n# printed\n".to_owned(), String::new()];
        assert_eq!(script.render(printed.into_iter()), FILE);
    }

    #[test]
    fn refuses_a_file_without_commands() {
        assert!(Script::parse("# nothing\n").is_err());
    }
}
