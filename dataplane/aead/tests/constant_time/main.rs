//! Checks the machine code of the vector units for secret-dependent branches, addresses and
//! divisions.
//!
//! The test disassembles its own binary and looks at every function of `avx2` and `avx512`,
//! executed or not. A word that leaves a vector or mask register for a general register, or for the
//! flags, is secret. It may be stored, and nothing else: [`taint`] follows it along every path.
//! Gathers, scatters and divisions are refused whatever their operands.
//!
//! In the dev profile this crate is optimized as in release, but has overflow checks.
//! `scripts/constant-time` runs the test in the release profile, too.
//!
//! Not covered: secrets that general registers load from memory or receive as arguments, and the
//! comparison of tags in `batch`. The tests under memcheck cover these where they are executed. The
//! time that an instruction takes is not checked: the CPU's integer vector instructions are assumed
//! to take the same time for all values.

#![forbid(unsafe_code)]

mod listing;
mod planted;
mod taint;

use std::hint::black_box;
use std::process::Command;

use listing::Function;
use wg_bounce_aead::{Aead, Key, Open, Seal};

/// Uses the whole crate, so that the linker keeps all of it in this binary.
fn use_all_paths() {
    let key = Key::new(&[1; 32]);
    let mut bytes = [0; 100];
    let aead = black_box(Aead::best());
    aead.seal(&mut [Seal { key: &key, counter: 1, message: &mut bytes }]);
    let mut batch = [Open { key: &key, counter: 1, message: &mut bytes, authentic: false }];
    aead.open(&mut batch);
    assert!(batch[0].authentic);
}

/// The disassembly of this binary.
fn disassemble() -> String {
    let binary = std::env::current_exe().expect("the path of this binary");
    let output = Command::new("objdump")
        .args(["--disassemble", "--no-show-raw-insn", "--demangle"])
        .arg(binary)
        .output()
        .expect("cannot run objdump: install binutils");
    assert!(output.status.success(), "objdump: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("objdump prints UTF-8")
}

/// Checks all functions, which must include those of both vector units. Returns a summary.
fn check(functions: &[Function]) -> Result<String, String> {
    for required in ["avx2::compute", "avx2::tags", "avx512::compute", "avx512::tags"] {
        if !functions.iter().any(|function| function.name.ends_with(required)) {
            return Err(format!("the function {required} is not in the listing"));
        }
    }
    let faults: Vec<String> = functions.iter().flat_map(taint::faults).collect();
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    let instructions: usize = functions.iter().map(|function| function.instructions.len()).sum();
    Ok(format!(
        "{instructions} instructions in {} functions: no secret-dependent branch or address",
        functions.len()
    ))
}

#[test]
fn vector_units_are_constant_time() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: x86-64 only");
        return;
    }
    use_all_paths();
    match check(&listing::vector_units(&disassemble())) {
        Ok(summary) => println!("constant_time: {summary}"),
        Err(faults) => panic!("secret-dependent machine code:\n{faults}"),
    }
}

#[test]
fn a_listing_without_vector_units_is_an_error() {
    let other = "0000000000000100 <wg_bounce_aead::key::Key::expand>:\n 100:\tret\n";
    assert_eq!(listing::vector_units(other).len(), 0);
    assert!(check(&listing::vector_units(other)).is_err());
}
