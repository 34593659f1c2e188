//! Checks on the source tree that neither the compiler nor clippy makes: which crate and module
//! may use which, import cycles, unsafe code, clocks, the size of files, words.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The text of every checked file, by its path in the checkout.
type Tree = BTreeMap<String, String>;

/// Each crate, and the crates of ours that its Cargo.toml may name.
const CRATES: [(&str, &str); 8] = [
    ("dataplane/sys", "fuzz"),
    ("dataplane/aead", "fuzz"),
    ("dataplane/fuzz", ""),
    ("uapi", "fuzz"),
    ("dataplane", "sys aead fuzz"),
    ("control", "dataplane sys aead uapi fuzz"),
    ("perf", "control"),
    ("benches", "dataplane sys aead control uapi fuzz"),
];

/// The modules that use the system. All others of these crates are pure: their inputs and the time
/// are arguments.
const RUNNING: [(&str, &str); 2] = [
    (
        "dataplane/src",
        "channels engine icmp_errors messages models receive router rx_queue send source_check \
         transmit turn worker",
    ),
    (
        "control/src",
        "commands link logging metrics::server netlink::socket notify options relay_policy::watch \
         runtime start state_file status::client status::deadline status::server uapi_server \
         uplinks",
    ),
];

/// Exceptions, which are plain data: types, and numbers (the functions of libc are unsafe).
const SYSTEM_DATA: &str = "wg_bounce_sys::clock::Millis wg_bounce_sys::route::Reply \
                           wg_bounce_sys::Endpoint wg_bounce_sys::Family \
                           wg_bounce_sys::OuterHeader \
                           wg_bounce_sys::PerFamily wg_bounce_sys::bpf::Direction \
                           wg_bounce_sys::bpf::NetfilterLink \
                           wg_bounce_sys::netlink::Protocol nix::libc";

/// Paths that lead to clocks, descriptors and threads.
const SYSTEM: &str = "wg_bounce_sys wg_bounce_dataplane::engine nix std::fs std::os std::thread \
                      std::net::TcpListener std::net::TcpStream std::net::UdpSocket";

/// Files with unsafe code: system calls, vector instructions, an allocator that counts.
const MAY_BE_UNSAFE: [&str; 3] = ["dataplane/sys/", "dataplane/aead/", "benches/allocations.rs"];

/// Lines in poor English that are allowed, over all files.
const MAX_DIALECT: usize = 40;
const MAX_LINES: usize = 500;
const MAX_COLUMNS: usize = 100;

/// A path in module `from` that leads to `to`, another module or the system.
struct Arrow {
    from: String,
    to: String,
    place: String,
}

#[test]
fn the_tree_follows_the_rules() {
    let mut tree = Tree::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), "", &mut tree);
    let found = violations(&tree);
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

fn read(root: &Path, folder: &str, tree: &mut Tree) {
    for entry in fs::read_dir(root.join(folder)).expect("a readable folder") {
        let entry = entry.expect("a readable folder");
        let name = entry.file_name().into_string().expect("names are UTF-8");
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let is_hidden = name.starts_with('.') && ![".ci", ".github"].contains(&name.as_str());
        if is_hidden || ["target", "proptest-regressions"].contains(&name.as_str()) {
            continue;
        } else if entry.file_type().expect("a file type").is_dir() {
            read(root, &path, tree);
        } else if [".rs", ".toml", ".md"].iter().any(|ending| path.ends_with(ending))
            || is_script(&path)
        {
            tree.insert(path.clone(), fs::read_to_string(root.join(&path)).expect("UTF-8"));
        }
    }
}

/// Whether a path is a script, and not data.
fn is_script(path: &str) -> bool {
    !path.ends_with(".json")
        && [".ci/", ".github/", "scripts/"].iter().any(|folder| path.starts_with(folder))
}

fn violations(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    check_manifests(tree, &mut found);
    check_modules(tree, &mut found);
    check_lines(tree, &mut found);
    found
}

fn check_manifests(tree: &Tree, found: &mut Vec<String>) {
    for (path, text) in tree {
        let Some(name) = path.strip_suffix("/Cargo.toml") else { continue };
        let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
            found.push(format!("{path}: a crate without a rule"));
            continue;
        };
        for line in text.lines().filter_map(|line| line.strip_prefix("wg-bounce-")) {
            let used = line.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
            if !allowed.split(' ').any(|name| name == used) {
                found.push(format!("{path}: must not depend on {used}"));
            }
        }
    }
    for (name, _) in CRATES {
        if !tree.contains_key(&format!("{name}/Cargo.toml")) {
            found.push(format!("{name}: no such crate"));
        }
    }
}

fn check_modules(tree: &Tree, found: &mut Vec<String>) {
    let roots: BTreeSet<_> = tree
        .keys()
        .filter(|path| path.ends_with("/lib.rs") || path.ends_with("/main.rs"))
        .map(|path| path.rsplit_once('/').expect("it has a slash").0)
        .collect();
    for root in roots {
        let modules = modules(tree, root);
        let arrows = arrows(tree, &modules);
        for arrow in cyclic(&arrows) {
            found.push(format!("{}: import cycle: {} -> {}", arrow.place, arrow.from, arrow.to));
        }
        let Some((_, running)) = RUNNING.iter().find(|(crate_root, _)| *crate_root == root) else {
            continue;
        };
        let running: Vec<_> = running.split(' ').map(|name| format!("crate::{name}")).collect();
        for name in running.iter().filter(|name| !modules.contains_key(*name)) {
            found.push(format!("{root}: no such module: {name}"));
        }
        let is_running = |module: &str| running.iter().any(|name| is_within(module, name));
        for arrow in &arrows {
            let is_test = arrow.from.split("::").any(|name| name == "tests");
            let is_pure = arrow.from != "crate" && !is_test && !is_running(&arrow.from);
            let is_system = SYSTEM.split_whitespace().any(|path| is_within(&arrow.to, path))
                && !SYSTEM_DATA.split_whitespace().any(|name| is_within(&arrow.to, name));
            if is_pure && (is_system || is_running(&arrow.to)) {
                found.push(format!("{}: a pure module uses {}", arrow.place, arrow.to));
            }
        }
    }
}

fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The modules of the crate rooted in this folder, with their files. A main.rs next to a lib.rs is
/// another crate.
fn modules<'a>(tree: &'a Tree, root: &str) -> BTreeMap<String, &'a str> {
    let mut modules = BTreeMap::new();
    for path in tree.keys() {
        let Some(name) = path.strip_prefix(root).and_then(|path| path.strip_suffix(".rs")) else {
            continue;
        };
        let name = ["/mod", "/lib", "/main"].iter().find_map(|end| name.strip_suffix(end));
        let name = name.unwrap_or(&path[root.len()..path.len() - 3]).replace('/', "::");
        modules.entry(format!("crate{name}")).or_insert(path.as_str());
    }
    modules
}

fn arrows(tree: &Tree, modules: &BTreeMap<String, &str>) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for (from, file) in modules {
        for (number, statement) in statements(&tree[*file]) {
            let words = statement.split(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
            for path in words.filter(|word| word.contains("::")) {
                if let Some(to) = resolve(path, from, modules).filter(|to| to != from) {
                    arrows.push(Arrow {
                        from: from.clone(),
                        to,
                        place: format!("{file}:{number}"),
                    });
                }
            }
        }
    }
    arrows
}

/// The module or the system's function that a path in module `from` leads to.
fn resolve(path: &str, from: &str, modules: &BTreeMap<String, &str>) -> Option<String> {
    let parent = |module: &str| module.rsplit_once("::").map(|(parent, _)| parent.to_owned());
    let mut parts = path.split("::");
    let first = parts.next()?;
    let mut at = match first {
        "crate" => first.to_owned(),
        "self" => from.to_owned(),
        "super" => parent(from)?,
        "std" | "nix" => return Some(path.to_owned()),
        _ if first.starts_with("wg_bounce_") => return Some(path.to_owned()),
        _ => Some(format!("{from}::{first}")).filter(|child| modules.contains_key(child))?,
    };
    for part in parts {
        let child = format!("{at}::{part}");
        match part {
            "super" => at = parent(&at)?,
            "self" => {}
            _ if modules.contains_key(&child) => at = child,
            _ => break,
        }
    }
    Some(at)
}

/// The lines of a file with their numbers, without comments and code under `#[cfg(test)]`. A `use`
/// of several lines is one, and its lists are spelled out as paths.
fn statements(text: &str) -> Vec<(usize, String)> {
    let mut statements = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut line = without_comment(line).to_owned();
        if line.trim_start().starts_with("#[cfg(test)]") {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let mut item = lines.by_ref().skip_while(|(_, line)| line.trim().starts_with("#["));
            if item.next().is_some_and(|(_, line)| line.ends_with('{')) {
                item.find(|(_, line)| *line == end);
            }
            continue;
        }
        if line.split_whitespace().take(2).any(|word| word == "use") {
            while !line.contains(';') {
                let Some((_, next)) = lines.next() else { break };
                line.push_str(without_comment(next));
            }
            line = spelled_out(line);
        }
        statements.push((number + 1, line));
    }
    statements
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// `use a::{b, c::{d, e}};` as `use a::b,a::c::d,a::c::e;`
fn spelled_out(mut text: String) -> String {
    while let Some(close) = text.find('}') {
        let Some(open) = text[..close].rfind('{') else { break };
        let start = text[..open].rfind([' ', ',', '{']).map_or(0, |at| at + 1);
        let prefix = &text[start..open];
        let paths = text[open + 1..close].split(',').map(|name| format!("{prefix}{}", name.trim()));
        let paths = paths.collect::<Vec<_>>().join(",");
        text.replace_range(start..=close, &paths);
    }
    text
}

/// The arrows between modules that are part of a cycle, one for each pair of modules.
fn cyclic(arrows: &[Arrow]) -> Vec<&Arrow> {
    let mut targets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        targets.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let leads_back = |arrow: &Arrow| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![arrow.to.as_str()]);
        while let Some(module) = open.pop() {
            if reached.insert(module) {
                open.extend(targets.get(module).into_iter().flatten());
            }
        }
        reached.contains(arrow.from.as_str())
    };
    let mut pairs = BTreeSet::new();
    arrows
        .iter()
        .filter(|arrow| pairs.insert((&arrow.from, &arrow.to)) && leads_back(arrow))
        .collect()
}

fn check_lines(tree: &Tree, found: &mut Vec<String>) {
    let mut dialect = Vec::new();
    for (path, text) in tree {
        let is_rust = path.ends_with(".rs");
        let may_be_unsafe = MAY_BE_UNSAFE.iter().any(|place| path.starts_with(place));
        let reads_no_clock = ["control/src", "uapi/src", "dataplane/src", "dataplane/aead/src"]
            .iter()
            .any(|crate_root| path.starts_with(crate_root));
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        if is_root && !may_be_unsafe && !text.contains("#![forbid(unsafe_code)]") {
            found.push(format!("{path}: no forbid(unsafe_code)"));
        }
        if (is_rust || is_script(path)) && text.lines().count() > MAX_LINES {
            found.push(format!("{path}: more than {MAX_LINES} lines"));
        }
        for (number, line) in text.lines().enumerate() {
            let mut report = |rule: &str| found.push(format!("{path}:{}: {rule}", number + 1));
            let code = without_comment(line);
            if is_rust && !may_be_unsafe && has_word(code, concat!("un", "safe")) {
                report("unsafe_code outside dataplane/sys and dataplane/aead");
            }
            if is_rust && reads_no_clock && CLOCKS.iter().any(|it| code.contains(it)) {
                report("only sys reads a clock");
            }
            if MARKS.iter().any(|mark| has_word(line, mark)) {
                report("unfinished");
            }
            let is_long = line.chars().count() > MAX_COLUMNS && !line.contains("://");
            if is_long && (is_rust || is_script(path)) {
                report("more than 100 columns");
            }
            if is_dialect(line) {
                dialect.push(format!("{path}:{}: poor English: {line}", number + 1));
            }
        }
    }
    if dialect.len() > MAX_DIALECT {
        found.extend(dialect);
    }
}

/// Marks of unfinished work. Split, as others below, so that this file has none.
const MARKS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK"), concat!("XX", "X")];

const CLOCKS: [&str; 2] = [concat!("Instant::", "now"), concat!("SystemTime::", "now")];

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|it| it == word)
}

/// Phrases that are rarely plain English; a doc comment starts with a noun or a verb.
fn is_dialect(line: &str) -> bool {
    let phrases = [
        concat!("no", "body"),
        concat!("some", "body"),
        concat!(" is", " no "),
        concat!(" sh", "all "),
        concat!("any", " more"),
    ];
    let first_word = ["/// ", "//! "]
        .iter()
        .find_map(|start| line.split_once(start))
        .map_or("", |(_, comment)| {
            comment.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
        });
    phrases.iter().any(|phrase| line.contains(phrase))
        || has_word(line, concat!("an", "ew"))
        || ["What", "Which", "Who", "How", "Where"].contains(&first_word)
}

/// A tree that follows the rules.
fn clean() -> Tree {
    let mut tree = Tree::new();
    for (name, _) in CRATES {
        tree.insert(format!("{name}/Cargo.toml"), "[dependencies]\nring = \"1\"\n".to_owned());
        tree.insert(format!("{name}/src/lib.rs"), "#![forbid(unsafe_code)]\n".to_owned());
    }
    for (root, names) in RUNNING {
        for name in names.split(' ') {
            let text = "use wg_bounce_sys::clock;\nuse crate::limits;\n".to_owned();
            tree.insert(format!("{root}/{}.rs", name.replace("::", "/")), text);
        }
    }
    let text = "use wg_bounce_sys::{clock::Millis, Family};\nuse a::wire; // nix::sys\n".to_owned();
    tree.insert("control/src/device.rs".to_owned(), text);
    tree
}

#[test]
fn every_violation_is_found() {
    assert_eq!(violations(&clean()), [""; 0]);
    let dialect = format!("{}\n", concat!("no", "body")).repeat(MAX_DIALECT + 1);
    let long_line = "x".repeat(MAX_COLUMNS + 1);
    let long_file = "\n".repeat(MAX_LINES + 1);
    let cases = [
        ("not depend on aead", "uapi/Cargo.toml", "wg-bounce-aead.workspace = true"),
        ("not depend on dataplane", "perf/Cargo.toml", "wg-bounce-dataplane = \"1\""),
        ("a crate without a rule", "tools/Cargo.toml", "[package]"),
        ("pure", "control/src/device.rs", "use wg_bounce_dataplane::{engine, wire};"),
        ("pure", "control/src/device.rs", "use nix::sys::socket;"),
        ("pure", "control/src/device.rs", "use wg_bounce_sys::{clock::boot_time, Family};"),
        ("pure", "control/src/noise/mod.rs", "use std::{\n fs,\n io};"),
        ("pure", "control/src/cookie.rs", "use crate::{\n limits,\n runtime::{A}};"),
        ("pure", "dataplane/src/replay.rs", "fn f() { super::receive::open() }"),
        ("a clock", "control/src/runtime.rs", CLOCKS[0]),
        ("unsafe_code outside", "dataplane/src/worker.rs", concat!("un", "safe { f() }")),
        ("no forbid", "control/src/main.rs", "fn main() {}"),
        ("unfinished", "uapi/src/lib.rs", concat!("// TO", "DO later")),
        ("100 columns", "uapi/src/lib.rs", &long_line),
        ("500 lines", "uapi/src/lib.rs", &long_file),
        ("poor English", "uapi/README.md", &dialect),
    ];
    for (rule, path, text) in cases {
        let mut tree = clean();
        tree.entry(path.to_owned()).or_default().push_str(text);
        let found = violations(&tree);
        assert!(found.iter().any(|line| line.contains(rule)), "{rule}: {path}: {found:?}");
    }
    let mut tree = clean();
    tree.remove("control/src/link.rs");
    assert_eq!(violations(&tree), ["control/src: no such module: crate::link"]);
}

#[test]
fn every_import_cycle_is_found() {
    let cycles = [
        [("a.rs", "use super::b::B;"), ("b.rs", "use crate::{c::C,\n a::{A, X}};")],
        [("a/mod.rs", "mod b;\nfn f() { b::f() }"), ("a/b.rs", "use super::A;")],
        [("a.rs", "use crate::b as c;"), ("b.rs", "fn f() { super::a::f() }")],
    ];
    for files in cycles {
        let mut tree = clean();
        for (path, text) in files {
            tree.insert(format!("uapi/src/{path}"), text.to_owned());
        }
        let found = violations(&tree);
        let is_cycle = |line: &String| line.contains("import cycle: crate::a");
        assert!(found.len() == 2 && found.iter().any(is_cycle), "{files:?}: {found:?}");
    }
}

#[test]
fn tests_and_comments_are_not_imports() {
    let text =
        "a // b\n#[cfg(test)]\nmod tests {\n    x\n}\nuse a::{\n    b::{c, d}, // e\n    f};\n";
    let found = statements(text);
    assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 6]);
    assert_eq!(found[1].1, "use a::b::c,a::b::d,a::f;");
}
