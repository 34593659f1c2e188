//! Follows secrets from vector registers through general registers and flags, along every path of
//! a function.

use std::collections::{BTreeSet, HashMap};

use crate::listing::{Function, Instruction};

/// A set of general registers and the flags, as a mask.
type Set = u32;

/// General registers by number: 64-, 32-, 16- and 8-bit names. `r8` to `r15` follow.
const NAMES: [&[&str]; 8] = [
    &["rax", "eax", "ax", "al", "ah"],
    &["rbx", "ebx", "bx", "bl", "bh"],
    &["rcx", "ecx", "cx", "cl", "ch"],
    &["rdx", "edx", "dx", "dl", "dh"],
    &["rsi", "esi", "si", "sil"],
    &["rdi", "edi", "di", "dil"],
    &["rbp", "ebp", "bp", "bpl"],
    &["rsp", "esp", "sp", "spl"],
];
const RAX: Set = 1 << 0;
const RCX: Set = 1 << 2;
const RDX: Set = 1 << 3;
const RSI: Set = 1 << 4;
const RDI: Set = 1 << 5;
const FLAGS: Set = 1 << 16;
/// Registers that a call may change: `r8` to `r11` and those named.
const SCRATCH: Set = RAX | RCX | RDX | RSI | RDI | 0xf << 8 | FLAGS;

/// The secret-dependent instructions of a function, each as one line.
pub fn faults(function: &Function) -> BTreeSet<String> {
    let instructions = &function.instructions;
    let by_address: HashMap<&str, usize> =
        instructions.iter().enumerate().map(|(index, it)| (&*it.address, index)).collect();
    // The registers that may hold a secret before each instruction, until nothing changes.
    let mut secret_before = vec![0; instructions.len()];
    let mut faults = BTreeSet::new();
    let mut has_changed = true;
    while has_changed {
        has_changed = false;
        for (index, instruction) in instructions.iter().enumerate() {
            let mut report = |kind: &str| {
                faults.insert(format!("{}: {kind}: {}", function.name, instruction.text));
            };
            let after = step(instruction, secret_before[index], &mut report);
            let target = instruction.jump_target().and_then(|target| by_address.get(target));
            let next =
                (!instruction.ends_path() && index + 1 < instructions.len()).then_some(index + 1);
            for successor in target.copied().into_iter().chain(next) {
                has_changed |= after & !secret_before[successor] != 0;
                secret_before[successor] |= after;
            }
        }
    }
    faults
}

/// The secret registers after an instruction, if those of `set` are secret before it. Reports
/// violations.
fn step(it: &Instruction, set: Set, report: &mut impl FnMut(&str)) -> Set {
    let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| it.mnemonic.starts_with(prefix));
    if is(&["nop", "endbr", "ret", "int3", "ud2", "vzero"]) {
        return set;
    }
    report_violations(it, set, report);
    if is(&["j"]) {
        return set;
    }
    if is(&["call"]) {
        return set & !SCRATCH;
    }
    let destination = it.operands.last().map_or(0, |operand| register(operand));
    if is(&["lea"]) {
        return put(set, destination, set & mentioned(&it.operands[0]) != 0);
    }
    if it.uses_vectors() {
        let sets_flags = ["test", "ptest", "vptest", "vtestp", "kortest", "ktest"];
        if is(&sets_flags) || it.mnemonic.contains("comis") {
            return set | FLAGS;
        }
        return set | destination;
    }
    step_general(it, set, destination)
}

/// Reports secret-dependent branches, addresses, and instructions that are refused altogether.
fn report_violations(it: &Instruction, set: Set, report: &mut impl FnMut(&str)) {
    let m = &*it.mnemonic;
    if m.contains("gather") || m.contains("scatter") {
        report("an address for each lane");
    }
    let unprefixed = m.strip_prefix('v').unwrap_or(m);
    if ["div", "idiv", "sqrt"].iter().any(|name| unprefixed.starts_with(name)) {
        report("a division");
    }
    if m.starts_with('j') && !m.starts_with("jmp") && set & FLAGS != 0 {
        report("a branch on a secret");
    }
    let is_address = |operand: &String| operand.contains('(') || operand.starts_with('*');
    let addresses = it.operands.iter().filter(|_| !m.starts_with("lea")).filter(|o| is_address(o));
    let is_string = m.starts_with("rep")
        || is_sized(m, "movs")
        || ["stos", "cmps", "scas"].iter().any(|name| m.starts_with(name));
    if addresses.into_iter().any(|address| set & mentioned(address) != 0)
        || (is_string && set & (RCX | RSI | RDI) != 0)
    {
        report("an address of a secret");
    }
}

/// The rules for instructions on general registers.
fn step_general(it: &Instruction, set: Set, destination: Set) -> Set {
    let m = &*it.mnemonic;
    let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| m.starts_with(prefix));
    let mut is_secret = it.operands.iter().any(|operand| set & register(operand) != 0);
    if is_sized(m, "push") {
        return set;
    }
    if is_sized(m, "pop") {
        return set & !destination;
    }
    if is(&["cltd", "cqto"]) {
        return put(set, RDX, set & RAX != 0);
    }
    if is(&["mov"]) {
        // The upper bytes stay if the destination is 8 or 16 bits wide.
        let source = it.operands.first().map_or(0, |operand| register(operand));
        let keeps = it.operands.last().is_some_and(|operand| is_partial(operand));
        return put(set, destination, if keeps { is_secret } else { set & source != 0 });
    }
    if is(&["bswap", "cltq"]) {
        return set;
    }
    if is(&["xor", "sub"]) && it.operands.len() == 2 && it.operands[0] == it.operands[1] {
        return set & !(destination | FLAGS);
    }
    if is_sized(m, "cmp") || is_sized(m, "test") || is_sized(m, "bt") {
        return put(set, FLAGS, is_secret);
    }
    if is(&["xchg"]) {
        let both = it.operands.iter().fold(0, |both, operand| both | register(operand));
        return if is_secret { set | both } else { set };
    }
    if is(&["set", "cmov", "adc", "sbb", "rcl", "rcr"]) {
        is_secret |= set & FLAGS != 0;
    }
    let mut set = set;
    if is(&["mul", "imul"]) && it.operands.len() == 1 {
        is_secret |= set & RAX != 0;
        set = put(set, RAX | RDX, is_secret);
    }
    if is(&["mulx"]) {
        is_secret |= set & RDX != 0;
        set = put(set, register(&it.operands[1]), is_secret);
    }
    if is_secret {
        set |= destination;
    }
    if is(&["set", "cmov", "not", "mulx", "shlx", "shrx", "sarx", "rorx", "pdep", "pext"]) {
        return set; // the flags stay
    }
    let keeps_flags = is(&["inc", "dec"]) || it.operands.iter().any(|operand| operand == "%cl");
    put(set, FLAGS, is_secret || keeps_flags && set & FLAGS != 0)
}

impl Instruction {
    /// The address to which it may jump, if that is fixed.
    fn jump_target(&self) -> Option<&str> {
        self.operands.first().filter(|_| self.mnemonic.starts_with('j')).map(String::as_str)
    }

    /// Whether the next instruction does not follow it.
    fn ends_path(&self) -> bool {
        ["jmp", "ret", "ud2"].iter().any(|name| self.mnemonic.starts_with(name))
    }

    /// Whether an operand is a vector or mask register.
    fn uses_vectors(&self) -> bool {
        let names = ["%xmm", "%ymm", "%zmm", "%k"];
        self.operands.iter().any(|operand| names.iter().any(|name| operand.contains(name)))
    }
}

/// Whether a mnemonic is `name`, with or without a suffix for the operand size.
fn is_sized(mnemonic: &str, name: &str) -> bool {
    let suffix = mnemonic.strip_prefix(name);
    suffix.is_some_and(|suffix| ["", "b", "w", "l", "q"].contains(&suffix))
}

/// `set` with or without `registers`.
fn put(set: Set, registers: Set, is_secret: bool) -> Set {
    if is_secret { set | registers } else { set & !registers }
}

/// The general register that an operand is, as a set; empty if it is something else.
fn register(operand: &str) -> Set {
    operand.strip_prefix('%').map_or(0, by_name)
}

/// The general registers in an address.
fn mentioned(operand: &str) -> Set {
    let names = operand.split('%').skip(1);
    names.fold(0, |set, rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        set | by_name(&rest[..end])
    })
}

fn by_name(name: &str) -> Set {
    if let Some(number) = NAMES.iter().position(|names| names.contains(&name)) {
        return 1 << number;
    }
    let number = name.strip_prefix('r').map(|rest| rest.trim_end_matches(['d', 'w', 'b']));
    match number.and_then(|number| number.parse().ok()) {
        Some(number @ 8..16) => 1 << number,
        _ => 0,
    }
}

/// Whether an operand is the low or second byte, or the low two bytes, of a general register.
fn is_partial(operand: &str) -> bool {
    let Some(name) = operand.strip_prefix('%') else { return false };
    let is_old = NAMES.iter().any(|names| names[2..].contains(&name));
    is_old || (name.starts_with('r') && name.ends_with(['w', 'b']) && by_name(name) != 0)
}
