//! The contents of the report on a small set of invented figures.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Writes a report on a file to another.
fn report(figures: &Path, page: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wg-bounce-perf"));
    command.arg("report").arg(figures).arg("--output").arg(page).output().expect("it starts")
}

/// The page of the sample.
fn page() -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = folder.path().join("report.html");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sample.jsonl");
    let output = report(&sample, &page);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(page).expect("the page is there")
}

/// All parts from each `from` to the next `to`, inclusive.
fn parts<'a>(page: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let starts = page.match_indices(from).map(|(start, _)| start);
    starts
        .map(|start| {
            let length = page[start..].find(to).expect("it ends") + to.len();
            &page[start..start + length]
        })
        .collect()
}

#[test]
fn every_subcommand_has_its_section_and_each_missing_program_a_line() {
    let page = page();
    for text in [
        "Invented CPU (avx2), 2 cores, Linux 6.12.0",
        "<h2>At a glance</h2>",
        "<h2>Throughput</h2>",
        "<h3>TCP, 16 streams, relay</h3>",
        "<h2>Cost per packet</h2>",
        "CPU of the relay per packet of 1408 bytes, ns",
        "<h2>Latency</h2>",
        "<h2>Handshakes</h2>",
        "<h2>Number of peers</h2>",
        "<td>io_uring (1 workers), GSO on, GRO on; AEAD: ring; relay: IPv4 and IPv6 direct</td>",
        "<li>gotatun: not there: no program /opt/peers/bin/gotatun (scripts/peers installs it)",
        "boringtun failed in 1 of 3 rounds: iperf3: unable to receive results</li>",
        "<li>boringtun, 100,000 peers: `wg setconf` took longer than 60 s</li>",
        "<li>TCP, 1 stream, IPv6: cannot make a network namespace</li>",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn a_table_has_the_figures() {
    let page = page();
    let tables = parts(&page, "<table>", "</table>");
    let medians: Vec<f64> = tables
        .iter()
        .find(|table| table.contains("Gbit/s") && table.contains("rounds"))
        .expect("the first run's table")
        .lines()
        .filter_map(|line| {
            let (_, cell) = line.split("<td>").nth(3)?.split_once("</svg>")?;
            let cell = cell.strip_prefix("<b>").unwrap_or(cell);
            cell.split([' ', '<']).next()?.parse().ok()
        })
        .collect();
    // wg-bounce three times, wireguard-go, boringtun; gotatun is missing.
    assert_eq!(medians, [2.53, 2.35, 1.52, 1.09, 0.52]);
}

#[test]
fn plots_are_whole_and_nothing_is_loaded_from_elsewhere() {
    let page = page();
    let (bars, curves): (Vec<_>, Vec<_>) =
        parts(&page, "<svg", "</svg>").into_iter().partition(|plot| plot.contains("class=\"bar\""));
    assert!(bars.len() >= 16 && curves.len() >= 6, "{} bars, {} curves", bars.len(), curves.len());
    let elements = |plot: &str, name: &str| {
        let document = roxmltree::Document::parse(plot).expect("well-formed");
        document.descendants().filter(|node| node.tag_name().name() == name).count()
    };
    for bar in bars {
        assert_eq!((elements(bar, "rect"), elements(bar, "path")), (1, 1), "{bar}");
    }
    for plot in curves {
        assert!(elements(plot, "text") > 5, "it is labelled: {plot}");
    }
    let plain = page.replace("http://www.w3.org/2000/svg", "");
    for elsewhere in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!plain.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn an_invalid_file_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (figures, page) = (folder.path().join("figures.jsonl"), folder.path().join("page.html"));
    for (text, why) in [("nonsense\n", "line 1 is not JSON"), ("", "there is no measurement")] {
        fs::write(&figures, text).expect("the folder is there");
        let output = report(&figures, &page);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why), "{said}");
        assert!(!page.exists());
    }
}
