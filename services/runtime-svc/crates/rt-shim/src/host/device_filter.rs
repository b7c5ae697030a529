//! Device access on cgroup v2, where a BPF program decides.
//!
//! The program allows what one of the rules allows and denies the rest. It gets the access type in the low 16
//! bits of the first word (1 block, 2 char), the access in the high ones (1 mknod, 2 read, 4 write), then major
//! and minor.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::sys;
use crate::spec::DeviceRule;

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

const LOAD_WORD: u8 = 0x61;
const AND_IMM: u8 = 0x54;
const RIGHT_SHIFT_IMM: u8 = 0x74;
const MOVE_REG: u8 = 0xbc;
const MOVE_IMM: u8 = 0xb4;
const JUMP_IF_NOT_IMM: u8 = 0x56;
const EXIT: u8 = 0x95;

/// Attaches a program that enforces `rules` to the v2 cgroup at `dir`.
///
/// # Errors
/// When the kernel refuses the program.
pub fn attach(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    let program = load(&assemble(rules)).map_err(|error| named(&error))?;
    let cgroup = File::open(dir)?;
    let mut attributes = Vec::new();
    for word in [
        cgroup.as_raw_fd().cast_unsigned(),
        program.as_raw_fd().cast_unsigned(),
        BPF_CGROUP_DEVICE,
        BPF_F_ALLOW_MULTI,
    ] {
        attributes.extend_from_slice(&word.to_ne_bytes());
    }
    sys::bpf(BPF_PROG_ATTACH, &attributes).map(drop).map_err(|error| named(&error))
}

fn named(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot limit device access of the cgroup: {error}"))
}

fn load(program: &[u8]) -> io::Result<std::os::fd::OwnedFd> {
    const LICENSE: &[u8] = b"Apache-2.0\0";
    let mut attributes = Vec::new();
    attributes.extend_from_slice(&BPF_PROG_TYPE_CGROUP_DEVICE.to_ne_bytes());
    let count = u32::try_from(program.len() / 8)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    attributes.extend_from_slice(&count.to_ne_bytes());
    attributes.extend_from_slice(&(program.as_ptr() as u64).to_ne_bytes());
    attributes.extend_from_slice(&(LICENSE.as_ptr() as u64).to_ne_bytes());
    attributes.resize(48, 0);
    sys::bpf(BPF_PROG_LOAD, &attributes).map(sys::own)
}

fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let (o, i) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [code, src << 4 | dst, o[0], o[1], i[0], i[1], i[2], i[3]]
}

fn assemble(rules: &[DeviceRule]) -> Vec<u8> {
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REG, 3, 2, 0, 0),
        instruction(AND_IMM, 3, 0, 0, 0xffff),
        instruction(RIGHT_SHIFT_IMM, 2, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        program.extend(assemble_rule(rule));
    }
    program.push(instruction(MOVE_IMM, 0, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program.concat()
}

fn assemble_rule(rule: &DeviceRule) -> Vec<[u8; 8]> {
    // (registers to prepare, register, value): the rule is left when the register differs from the value.
    let mut checks: Vec<(Vec<[u8; 8]>, u8, u32)> = Vec::new();
    match rule.kind {
        'b' => checks.push((Vec::new(), 3, 1)),
        'c' => checks.push((Vec::new(), 3, 2)),
        _ => {}
    }
    let allowed = rule.access.bytes().fold(0, |bits, access| {
        bits | match access {
            b'm' => 1,
            b'r' => 2,
            b'w' => 4,
            _ => 0,
        }
    });
    if allowed != 7 {
        let rest =
            vec![instruction(MOVE_REG, 6, 2, 0, 0), instruction(AND_IMM, 6, 0, 0, 7 & !allowed)];
        checks.push((rest, 6, 0));
    }
    checks.extend(rule.major.map(|major| (Vec::new(), 4, major)));
    checks.extend(rule.minor.map(|minor| (Vec::new(), 5, minor)));
    let length: usize = checks.iter().map(|(before, ..)| before.len() + 1).sum::<usize>() + 2;
    let mut program: Vec<[u8; 8]> = Vec::with_capacity(length);
    for (before, register, value) in checks {
        program.extend(before);
        // Distance to the first instruction of the next rule; a rule has at most nine instructions.
        let offset = (length - program.len() - 1) as i16;
        program.push(instruction(JUMP_IF_NOT_IMM, register, 0, offset, value.cast_signed()));
    }
    program.push(instruction(MOVE_IMM, 0, 0, 0, 1));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_accepts_the_program() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED kernel_accepts_the_program: needs root (bpf)");
            return;
        }
        let rule = |kind, major, minor, access: &str| DeviceRule {
            kind,
            major,
            minor,
            access: access.to_owned(),
        };
        let rules = [
            rule('a', None, None, "m"),
            rule('c', Some(1), Some(3), "rwm"),
            rule('b', Some(8), None, "r"),
        ];
        for rules in [&rules[..], &[]] {
            load(&assemble(rules)).unwrap();
        }
    }
}
