//! What a run has found, in words.

use std::fmt::Write as _;

use regex::Regex;

use super::explained::EXPLAINED;
use super::{DiffOptions, Difference, Finding, Summary};

/// Of one request or answer; long values say nothing more.
const TEXT_CHARS_MAX: usize = 1_000;
/// Of a script; a shrunk one is far shorter.
const SCRIPT_LINES_MAX: usize = 60;

pub fn describe_summary(summary: &Summary, options: &DiffOptions) -> String {
    let total = &summary.total;
    let mut text = format!(
        "{} requests in {} segments of seed {}: {} refused by both alike, {} watch events, {} hashes, {} revisions; \
         {} differences explained, {} not\n",
        total.total(),
        summary.segments,
        options.seed,
        total.refused(),
        total.events,
        total.hashes,
        total.revision,
        total.explained.values().sum::<u64>(),
        summary.findings.len()
    );
    let kinds: Vec<_> = total
        .requests
        .iter()
        .map(|(kind, asked)| match asked.refused {
            0 => format!("{kind} {}", asked.times),
            refused => format!("{kind} {} ({refused} refused)", asked.times),
        })
        .collect();
    let _ = writeln!(text, "  {}", kinds.join(", "));
    for explained in EXPLAINED {
        let count = total.explained.get(explained.name).copied().unwrap_or_default();
        let _ = writeln!(text, "  explained {count} times: {}: {}", explained.name, explained.reason);
    }
    text.truncate(text.trim_end().len());
    text
}

pub fn describe_finding(finding: &Finding, options: &DiffOptions) -> String {
    let mut text = format!(
        "DIFFERENCE in segment {} (its seed: {}), step {}\n{}{}",
        finding.segment,
        finding.segment_seed,
        finding.difference.step,
        both(&finding.difference),
        finding.logs
    );
    let _ = writeln!(
        text,
        "again: cluster-test diff --seed {} --requests {} --segment {}",
        options.seed, options.requests, finding.segment
    );
    let _ = writeln!(text, "{} of {} steps are enough:", finding.steps_needed, finding.steps);
    let skipped = finding.script.len().saturating_sub(SCRIPT_LINES_MAX);
    if skipped > 0 {
        let _ = writeln!(text, "  ({skipped} requests before these)");
    }
    for (call, answer) in &finding.script[skipped..] {
        let _ = writeln!(text, "  {}\n      etcd: {}", short(call), short(answer));
    }
    text.push_str(&both(&finding.shrunk_difference));
    text
}

fn both(difference: &Difference) -> String {
    format!(
        "  {}\n      etcd: {}\n      ours: {}\n",
        short(&difference.what),
        short(&difference.theirs),
        short(&difference.ours)
    )
}

/// Without the fields that are not set, and cut where it is long.
fn short(text: &str) -> String {
    let unset = Regex::new(r#"\b\w+: (0|false|None|Key|b?""|\[\])(, |( \}))"#).expect("the pattern is right");
    let text = unset.replace_all(text, "$3").replace(",  }", " }").replace(", }", " }");
    let count = text.chars().count();
    if count <= TEXT_CHARS_MAX {
        return text;
    }
    let start: String = text.chars().take(TEXT_CHARS_MAX).collect();
    format!("{start}... ({count} characters)")
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::super::segment::Asked;
    use super::*;

    #[test]
    fn a_finding_says_what_differs_and_how_to_see_it_again() {
        let difference = Difference {
            step: 7,
            kind: "Put",
            what: "PutRequest".into(),
            theirs: "yes".into(),
            ours: "no".repeat(5_000),
        };
        let finding = Finding {
            segment: 3,
            segment_seed: 99,
            difference: difference.clone(),
            steps: 8,
            steps_needed: 2,
            script: vec![("RangeRequest".into(), "nothing".into())],
            shrunk_difference: difference,
            logs: String::new(),
        };
        let text = describe_finding(&finding, &DiffOptions::new(5, 1_000));
        for part in
            ["segment 3", "--seed 5", "--segment 3", "etcd: yes", "RangeRequest", "2 of 8 steps", "10000 characters"]
        {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(text.len() < 6_000, "{} bytes", text.len());
    }

    #[test]
    fn what_is_not_set_is_not_shown() {
        let put = quorate_proto::etcdserverpb::PutRequest { key: "a".into(), prev_kv: true, ..Default::default() };
        assert_eq!(short(&format!("{put:?}")), r#"PutRequest { key: b"a", prev_kv: true }"#);
    }

    #[test]
    fn a_summary_counts_by_kind() {
        let mut total = Outcome::default();
        total.requests.insert("Put", Asked { times: 5, refused: 2 });
        let text = describe_summary(&Summary { segments: 1, total, findings: Vec::new() }, &DiffOptions::new(5, 5));
        assert!(text.starts_with("5 requests in 1 segments of seed 5: 2 refused"), "{text}");
        assert!(text.contains("Put 5 (2 refused)"), "{text}");
    }
}
