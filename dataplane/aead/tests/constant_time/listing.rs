//! Parses the output of `objdump --disassemble` (AT&T syntax).

/// A disassembled function.
pub struct Function {
    /// Its demangled name.
    pub name: String,
    /// Its instructions in order of address.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
pub struct Instruction {
    /// As in the listing, without address and prefixes.
    pub text: String,
    /// Hexadecimal, as in the listing.
    pub address: String,
    /// The name of the instruction, without prefixes.
    pub mnemonic: String,
    /// The operands; the destination is the last one.
    pub operands: Vec<String>,
}

/// Prefixes that the listing prints as words and that do not matter here.
const PREFIXES: [&str; 6] = ["data16 ", "cs ", "ds ", "lock ", "bnd ", "notrack "];

/// The functions of the vector units.
pub fn vector_units(listing: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    let mut is_inside = false;
    for line in listing.lines() {
        if let Some(name) = function_name(line) {
            is_inside = name.contains("aead::avx2::") || name.contains("aead::avx512::");
            if is_inside {
                functions.push(Function { name: name.to_owned(), instructions: Vec::new() });
            }
        } else if is_inside && let Some(instruction) = Instruction::parse(line) {
            let function = functions.last_mut().expect("a function was pushed");
            function.instructions.push(instruction);
        }
    }
    functions
}

/// The name in a line such as `0000000000005dc30 <name>:`.
fn function_name(line: &str) -> Option<&str> {
    let (address, name) = line.split_once(" <")?;
    let is_address = !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit());
    name.strip_suffix(">:").filter(|_| is_address)
}

impl Instruction {
    /// Parses a line such as `  5dc34:\tmov    %rax,0x8(%rsi)`.
    fn parse(line: &str) -> Option<Instruction> {
        let (address, text) = line.trim_start().split_once(':')?;
        if !line.starts_with(' ') || !address.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let mut text = text.trim();
        while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            text = rest.trim_start();
        }
        let (mnemonic, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(Instruction {
            text: text.to_owned(),
            address: address.to_owned(),
            mnemonic: mnemonic.to_owned(),
            operands: operands(rest),
        })
    }
}

/// Splits operands at commas outside parentheses, and drops symbols and comments behind them.
fn operands(text: &str) -> Vec<String> {
    let end = [" <", " #"].into_iter().filter_map(|mark| text.find(mark)).min();
    let text = text[..end.unwrap_or(text.len())].trim();
    if text.is_empty() {
        return Vec::new();
    }
    let mut operands = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                operands.push(String::new());
                continue;
            }
            _ => {}
        }
        operands.last_mut().expect("there is a first one").push(c);
    }
    operands
}

#[test]
fn parses_instructions() {
    let parse = |line| Instruction::parse(line).expect("an instruction");
    let load = parse("  62ff0:\tvmovdqu 0x8(%rsi,%rdi,1),%ymm0        # 1000 <x+0x10>");
    assert_eq!((&*load.address, &*load.mnemonic), ("62ff0", "vmovdqu"));
    assert_eq!(load.operands, ["0x8(%rsi,%rdi,1)", "%ymm0"]);
    let jump = parse("   64:\tbnd jne    62ff0 <wg_bounce_aead::avx2::tags+0x10>");
    assert_eq!((&*jump.mnemonic, &*jump.operands[0]), ("jne", "62ff0"));
    assert!(parse("   65:\tret").operands.is_empty());
    assert!(Instruction::parse("Disassembly of section .text:").is_none());
}
