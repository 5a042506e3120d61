//! Holds the map of ARCHITECTURE.md: who may know whom, how rooms open, what never stands in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cluster_test::programs::repository;

/// Files may grow up to this many lines.
const FILE_LINES_MAX: usize = 500;
/// The pages that people read to find their way.
const PAGE_LINES_MAX: usize = 300;

const CRATES: [&str; 7] = ["proto", "store", "client", "tuning", "server", "ctl", "cluster-test"];

/// The crates of this workspace that each may name.
const EDGES: [(&str, &[&str]); 7] = [
    ("proto", &[]),
    ("store", &["quorate-proto"]),
    ("client", &["quorate-proto"]),
    ("tuning", &[]),
    ("server", &["quorate-proto", "quorate-store", "quorate-tuning"]),
    ("ctl", &["quorate-client", "quorate-tuning"]),
    ("cluster-test", &["quorate-proto", "quorate-tuning"]),
];

/// What would let time, chance, threads or consensus into the state.
const NOT_IN_STORE: [&str; 7] = ["tokio", "tonic", "openraft", "rand", "futures", "chrono", "jiff"];

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Every source file of the workspace, by its path in the repository.
fn all() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for name in CRATES {
        for part in ["src", "tests"] {
            let dir = repository().join(name).join(part);
            for path in if dir.is_dir() { sources(&dir)? } else { Vec::new() } {
                let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                files.insert(
                    path.strip_prefix(repository().canonicalize()?).unwrap_or(&path).display().to_string(),
                    text,
                );
            }
        }
    }
    Ok(files)
}

/// Names under `[dependencies]` of a crate's manifest, and of its tables by target.
fn dependencies(name: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(repository().join(name).join("Cargo.toml"))?;
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.contains("dev-");
        } else if inside && !line.starts_with('#') {
            names.extend(line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    Ok(names)
}

fn complain(what: &str, offenders: Vec<String>) -> Result<()> {
    ensure!(offenders.is_empty(), "{what}:\n  {}", offenders.join("\n  "));
    Ok(())
}

#[test]
fn crates_know_only_lower_floors() -> Result<()> {
    for (name, allowed) in EDGES {
        let named = dependencies(name)?;
        let wrong =
            named.into_iter().filter(|other| other.starts_with("quorate") && !allowed.contains(&other.as_str()));
        complain(&format!("{name} names what it must not know"), wrong.collect())?;
    }
    Ok(())
}

#[test]
fn the_state_has_no_clock_no_chance_and_no_network() -> Result<()> {
    let named = dependencies("store")?;
    complain("store depends on", named.into_iter().filter(|name| NOT_IN_STORE.contains(&name.as_str())).collect())?;
    let words = ["std::time", "Instant::now", "SystemTime", "std::thread", "std::net", "HashMap", "HashSet"];
    let mut offenders = Vec::new();
    for (path, text) in all()?.iter().filter(|(path, _)| path.contains("store/src")) {
        offenders.extend(words.iter().filter(|word| text.contains(**word)).map(|word| format!("{path}: {word}")));
    }
    complain("in the state", offenders)
}

#[test]
fn consensus_is_named_in_its_room_alone() -> Result<()> {
    let offends = |(path, text): &(&String, &String)| {
        let own = path.contains("server/src/raft/") || path.ends_with("tests/tidy.rs");
        !own && text.lines().any(|line| line.contains("openraft::") || line.contains("use openraft"))
    };
    complain("openraft is named in", all()?.iter().filter(offends).map(|(path, _)| path.clone()).collect())
}

#[test]
fn rooms_open_with_their_purpose() -> Result<()> {
    let silent = |(path, text): &(&String, &String)| {
        // Tests beside a room may begin with what they use; rooms may not.
        let test = path.contains("/tests/") || path.ends_with("tests.rs");
        !test && !text.starts_with("//!")
    };
    complain("no `//!` at the top of", all()?.iter().filter(silent).map(|(path, _)| path.clone()).collect())
}

#[test]
fn files_stay_short_enough_to_be_read() -> Result<()> {
    let files = all()?;
    let lengths = files.iter().map(|(path, text)| (path, text.lines().count()));
    let long =
        lengths.filter(|(_, lines)| *lines > FILE_LINES_MAX).map(|(path, lines)| format!("{path}: {lines} lines"));
    complain(&format!("longer than {FILE_LINES_MAX} lines"), long.collect())
}

#[test]
fn no_test_is_left_out() -> Result<()> {
    // Written in two pieces, so that this file does not find itself.
    let words = [concat!("#[ig", "nore"), concat!("#[should", "_panic")];
    let mut offenders = Vec::new();
    for (path, text) in all()? {
        offenders.extend(words.iter().filter(|word| text.contains(**word)).map(|word| format!("{path}: {word}")));
    }
    complain("tests that are not run, or cannot say what they expect", offenders)
}

#[test]
fn pages_stay_short_and_their_links_lead_somewhere() -> Result<()> {
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(repository().join(page)).with_context(|| format!("read {page}"))?;
        ensure!(text.lines().count() <= PAGE_LINES_MAX, "{page} has more than {PAGE_LINES_MAX} lines");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let broken = targets
            .filter(|target| !target.contains("://") && !target.starts_with('#'))
            .filter(|target| !repository().join(target.split('#').next().unwrap_or(target)).exists());
        complain(&format!("{page} leads nowhere"), broken.map(str::to_owned).collect())?;
    }
    Ok(())
}
