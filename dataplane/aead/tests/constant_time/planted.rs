//! Planted violations, which must be found, and clean code, which must pass.

use crate::listing;
use crate::taint;

const BRANCH: &str = "jne    64 <x+0x0>";

/// The faults of a function with these instructions, at addresses from 0x64 on.
fn faults_of(instructions: &[&str]) -> Vec<String> {
    let mut text = "00000100 <wg_bounce_aead::avx2::compute>:\n".to_owned();
    for (address, instruction) in (0x64..).zip(instructions) {
        text += &format!(" {address:x}:\t{instruction}\n");
    }
    let functions = listing::vector_units(&text);
    assert_eq!(functions.len(), 1);
    assert_eq!(functions[0].instructions.len(), instructions.len());
    taint::faults(&functions[0]).into_iter().collect()
}

#[track_caller]
fn expect_clean(instructions: &[&str]) {
    assert_eq!(faults_of(instructions), Vec::<String>::new());
}

#[track_caller]
fn expect_fault(kind: &str, instructions: &[&str]) {
    let faults = faults_of(instructions);
    let is_found = faults.iter().any(|fault| fault.contains(kind));
    assert!(is_found, "not found: {kind} in {instructions:?}, but {faults:?}");
}

#[test]
fn secrets_may_be_stored() {
    expect_clean(&[
        "vmovq  %xmm0,%rax",
        "mov    %rax,0x8(%rsi,%rdi,1)",
        "cmp    %rdi,%rcx",
        BRANCH,
    ]);
}

#[test]
fn overwritten_registers_are_public() {
    expect_clean(&["vmovq  %xmm0,%rax", "mov    (%rsi),%rax", "test   %rax,%rax", BRANCH]);
    expect_clean(&["vpextrq $0x1,%xmm1,%rcx", "xor    %ecx,%ecx", "mov    (%rsi,%rcx,8),%rdx"]);
}

#[test]
fn public_values_may_decide_and_enter_vectors() {
    expect_clean(&["cmp    %rax,%rcx", BRANCH, "vmovq  %rax,%xmm0", "ret"]);
}

#[test]
fn finds_branches() {
    let kind = "a branch on a secret";
    expect_fault(kind, &["vmovq  %xmm0,%rax", "test   %rax,%rax", BRANCH]);
    expect_fault(
        kind,
        &["vmovd  %xmm0,%eax", "mov    %eax,%r9d", "add    $0x1,%r9d", "jb     64 <x>"],
    );
    expect_fault(kind, &["vpmovmskb %ymm0,%eax", "cmp    $0xff,%al", BRANCH]);
    expect_fault(kind, &["vptest %ymm0,%ymm0", "mov    %rax,%rbx", BRANCH]);
    expect_fault(kind, &["kortestb %k1,%k1", BRANCH]);
    expect_fault(kind, &["vucomisd %xmm0,%xmm1", "jp     64 <x>"]);
    expect_fault(kind, &["kmovq  %k1,%rdx", "popcnt %rdx,%rcx", "sub    %rcx,%rsi", BRANCH]);
}

#[test]
fn finds_a_branch_along_a_backward_jump() {
    expect_fault(
        "a branch on a secret",
        &[
            "test   %rax,%rax",
            "je     67 <x>",
            "ret",
            "cmp    %r8,%r9",
            BRANCH,
            "ret",
            "vmovq  %xmm2,%r8",
            "jmp    67 <x>",
        ],
    );
}

#[test]
fn finds_branches_behind_instructions_that_keep_the_flags() {
    let kind = "a branch on a secret";
    for kept in ["not    %rbx", "dec    %rbx", "shlx   %rcx,%rdx,%rbx", "lea    (%rsi),%rbx"] {
        expect_fault(kind, &["vmovq  %xmm0,%rax", "test   %rax,%rax", kept, BRANCH]);
    }
    expect_fault(kind, &["vmovq  %xmm0,%rax", "cqto", "test   %rdx,%rdx", BRANCH]);
    expect_fault(kind, &["vmovq  %xmm0,%rax", "mulx   %rax,%rbx,%rcx", "cmp    %rbx,%rsi", BRANCH]);
}

#[test]
fn finds_addresses() {
    let kind = "an address of a secret";
    expect_fault(kind, &["vmovd  %xmm0,%ecx", "movzbl 0x7(%rsi,%rcx,1),%eax"]);
    expect_fault(
        kind,
        &["vpextrd $0x2,%xmm0,%eax", "lea    0x4(,%rax,8),%rdx", "mov    (%rdx),%rcx"],
    );
    expect_fault(kind, &["vmovq  %xmm0,%rax", "jmp    *%rax"]);
    expect_fault(kind, &["vmovq  %xmm0,%r8", "vmovdqu (%r8),%ymm0"]);
}

#[test]
fn refuses_gathers_and_divisions() {
    expect_fault("an address for each lane", &["vpgatherdd %ymm1,(%rax,%ymm2,4),%ymm0"]);
    expect_fault("a division", &["div    %rcx"]);
}
