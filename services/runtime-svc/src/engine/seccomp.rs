//! Seccomp profiles: which one a container gets, and turning it into a filter program.
//!
//! A profile is a list of rules, tried in order; what none names gets the default action. Programs of another
//! architecture are refused every call, because their numbers mean other calls.

use flotilla_proto::cri::runtime::v1 as cri;
use serde::Deserialize;

use super::error::{Error, Result};
use super::ports::Machine;
use super::syscalls;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const LOG: u32 = 0x7ffc_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRACE: u32 = 0x7ff0_0000;

/// Most instructions the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;

/// The compiled filter, or none for an unconfined container.
pub(super) fn filter(
    context: &cri::LinuxContainerSecurityContext,
    capabilities: &[u8],
    machine: &dyn Machine,
) -> Result<Option<Vec<u8>>> {
    use cri::security_profile::ProfileType;
    let Some(profile) = context.seccomp.as_ref().filter(|_| !context.privileged) else {
        return Ok(None);
    };
    match profile.profile_type() {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => compile(&default_profile(capabilities)).map(Some),
        ProfileType::Localhost => {
            let path = profile.localhost_ref.trim_start_matches("localhost/");
            if !path.starts_with('/') {
                return Err(Error::Invalid(format!(
                    "seccomp profile {path:?} must be an absolute path"
                )));
            }
            let text = machine
                .read(std::path::Path::new(path))
                .map_err(|e| e.during("failed to load the seccomp profile"))?;
            let profile = serde_json::from_slice::<File>(&text).map_err(|error| {
                Error::failed(format!("seccomp profile {path} is not understood"), error)
            })?;
            compile(&profile.resolve()?).map(Some)
        }
    }
}

/// A profile with numbers instead of names.
#[derive(Debug)]
struct Profile {
    default: u32,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    number: u32,
    conditions: Vec<Condition>,
    action: u32,
}

/// `argument & mask` compared with a value.
#[derive(Debug, Clone, Copy)]
struct Condition {
    argument: u8,
    mask: u64,
    compare: Compare,
    value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// A profile file in the OCI runtime specification's format.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<FileRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRule {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<FileCondition>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileCondition {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

impl File {
    fn resolve(&self) -> Result<Profile> {
        let mut rules = Vec::new();
        for rule in &self.syscalls {
            let action = action(&rule.action, rule.errno_ret)?;
            let conditions = rule
                .args
                .iter()
                .flatten()
                .map(FileCondition::resolve)
                .collect::<Result<Vec<_>>>()?;
            // Names this machine does not know cannot be called either.
            let numbers = rule.names.iter().filter_map(|name| syscalls::number(name));
            rules.extend(numbers.map(|number| Rule {
                number,
                conditions: conditions.clone(),
                action,
            }));
        }
        Ok(Profile { default: action(&self.default_action, self.default_errno_ret)?, rules })
    }
}

impl FileCondition {
    fn resolve(&self) -> Result<Condition> {
        if self.index > 5 {
            return Err(Error::Invalid(format!(
                "seccomp argument index {} is out of range (0 to 5)",
                self.index
            )));
        }
        let (compare, mask, value) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (Compare::Equal, u64::MAX, self.value),
            "SCMP_CMP_NE" => (Compare::NotEqual, u64::MAX, self.value),
            "SCMP_CMP_GT" => (Compare::Greater, u64::MAX, self.value),
            "SCMP_CMP_GE" => (Compare::GreaterOrEqual, u64::MAX, self.value),
            "SCMP_CMP_LT" => (Compare::Less, u64::MAX, self.value),
            "SCMP_CMP_LE" => (Compare::LessOrEqual, u64::MAX, self.value),
            "SCMP_CMP_MASKED_EQ" => (Compare::Equal, self.value, self.value_two),
            other => return Err(Error::Invalid(format!("unknown seccomp operator {other:?}"))),
        };
        Ok(Condition { argument: self.index, mask, compare, value })
    }
}

fn action(name: &str, errno: Option<u16>) -> Result<u32> {
    let errno = u32::from(errno.unwrap_or(libc::EPERM as u16));
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | errno,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRACE" => TRACE | errno,
        "SCMP_ACT_NOTIFY" => {
            return Err(Error::Unsupported("seccomp action SCMP_ACT_NOTIFY".to_owned()));
        }
        other => return Err(Error::Invalid(format!("unknown seccomp action {other:?}"))),
    })
}

/// What containers may call unless told otherwise; some calls come with a capability.
fn default_profile(capabilities: &[u8]) -> Profile {
    let mut rules = Vec::new();
    let mut allow = |names: &[&str]| {
        let numbers = names.iter().filter_map(|name| syscalls::number(name));
        rules.extend(numbers.map(|number| Rule { number, conditions: Vec::new(), action: ALLOW }));
    };
    allow(syscalls::HARMLESS);
    for (capability, names) in syscalls::WITH_CAPABILITY {
        if capabilities.contains(capability) {
            allow(names);
        }
    }
    let mut restrict = |name: &str, condition: Condition| {
        let number = syscalls::number(name);
        rules.extend(number.map(|number| Rule {
            number,
            conditions: vec![condition],
            action: ALLOW,
        }));
    };
    for persona in [0, 8, 0x20000, 0x20008, 0xffff_ffff] {
        restrict(
            "personality",
            Condition { argument: 0, mask: u64::MAX, compare: Compare::Equal, value: persona },
        );
    }
    const VSOCK: u64 = 40;
    restrict(
        "socket",
        Condition { argument: 0, mask: u64::MAX, compare: Compare::NotEqual, value: VSOCK },
    );
    const SYS_ADMIN: u8 = 21;
    if !capabilities.contains(&SYS_ADMIN) {
        const NEW_NAMESPACES: u64 = 0x7e02_0000;
        restrict(
            "clone",
            Condition { argument: 0, mask: NEW_NAMESPACES, compare: Compare::Equal, value: 0 },
        );
        // Its flags are behind a pointer; libraries fall back to clone when it seems to be missing.
        let number = syscalls::number("clone3");
        let action = ERRNO | libc::ENOSYS.cast_unsigned();
        rules.extend(number.map(|number| Rule { number, conditions: Vec::new(), action }));
    }
    Profile { default: ERRNO | libc::EPERM.cast_unsigned(), rules }
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    value: u32,
}

fn op(code: u16, value: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, value }
}

fn jump(code: u16, value: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code, yes, no, value }
}

fn compile(profile: &Profile) -> Result<Vec<u8>> {
    let refuse = ERRNO | libc::EPERM.cast_unsigned();
    let mut program = vec![
        op(LOAD, ARCH_AT),
        jump(JUMP_EQUAL, ARCH, 1, 0),
        op(RETURN, refuse),
        op(LOAD, NUMBER_AT),
    ];
    // The x32 calls share x86_64's architecture code.
    program.extend([jump(JUMP_GREATER_EQUAL, 0x4000_0000, 0, 1), op(RETURN, refuse)]);
    for rule in &profile.rules {
        let body = body(rule);
        let skip = u8::try_from(body.len())
            .map_err(|_| Error::Invalid("a seccomp rule has too many conditions".to_owned()))?;
        program.push(jump(JUMP_EQUAL, rule.number, 0, skip));
        program.extend(body);
    }
    program.push(op(RETURN, profile.default));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::Invalid(format!(
            "the seccomp profile needs {} instructions, {MAX_INSTRUCTIONS} fit",
            program.len()
        )));
    }
    let bytes = |i: &Instruction| {
        [&i.code.to_ne_bytes()[..], &[i.yes, i.no], &i.value.to_ne_bytes()].concat()
    };
    Ok(program.iter().flat_map(bytes).collect())
}

/// What follows a matching number. When a condition fails, the number is loaded again for the rules after it.
fn body(rule: &Rule) -> Vec<Instruction> {
    if rule.conditions.is_empty() {
        return vec![op(RETURN, rule.action)];
    }
    let parts: Vec<Vec<Instruction>> =
        rule.conditions.iter().map(|condition| check(*condition)).collect();
    let mut length: usize = parts.iter().map(Vec::len).sum();
    let mut body = Vec::new();
    for part in parts {
        length -= part.len();
        for (index, mut instruction) in part.iter().copied().enumerate() {
            // Offsets inside a part are marked; FAIL leads past the return, at the reload.
            let rest = part.len() - index - 1;
            let resolve = |target: u8| match target {
                FAIL => (rest + length + 1) as u8,
                PASS => rest as u8,
                near => near,
            };
            (instruction.yes, instruction.no) = (resolve(instruction.yes), resolve(instruction.no));
            body.push(instruction);
        }
    }
    body.push(op(RETURN, rule.action));
    body.push(op(LOAD, NUMBER_AT));
    body
}

/// Jump targets that are resolved once the distance is known.
const FAIL: u8 = 255;
const PASS: u8 = 254;

/// Compares the high half first, then the low one.
fn check(condition: Condition) -> Vec<Instruction> {
    let at = ARGUMENTS_AT + 8 * u32::from(condition.argument);
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    let (mask_high, mask_low) = ((condition.mask >> 32) as u32, condition.mask as u32);
    // Little-endian: the low half comes first.
    let first = [op(LOAD, at + 4), op(AND, mask_high)];
    let second = [op(LOAD, at), op(AND, mask_low)];
    let (negate, code) = match condition.compare {
        Compare::Equal => {
            let jumps = [jump(JUMP_EQUAL, high, 0, FAIL), jump(JUMP_EQUAL, low, PASS, FAIL)];
            return [&first[..], &jumps[..1], &second, &jumps[1..]].concat();
        }
        Compare::NotEqual => {
            let jumps = [jump(JUMP_EQUAL, high, 0, PASS), jump(JUMP_EQUAL, low, FAIL, PASS)];
            return [&first[..], &jumps[..1], &second, &jumps[1..]].concat();
        }
        Compare::Greater => (false, JUMP_GREATER),
        Compare::GreaterOrEqual => (false, JUMP_GREATER_EQUAL),
        Compare::Less => (true, JUMP_GREATER_EQUAL),
        Compare::LessOrEqual => (true, JUMP_GREATER),
    };
    let (above, below) = if negate { (FAIL, PASS) } else { (PASS, FAIL) };
    let halves = [jump(JUMP_GREATER, high, above, 0), jump(JUMP_EQUAL, high, 0, below)];
    [&first[..], &halves, &second, &[jump(code, low, above, below)]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[u8], number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&number.to_ne_bytes());
        data.extend_from_slice(&ARCH.to_ne_bytes());
        data.extend_from_slice(&[0; 8]);
        arguments.iter().for_each(|argument| data.extend_from_slice(&argument.to_ne_bytes()));
        let (mut pc, mut a) = (0usize, 0u32);
        loop {
            let i = &program[pc * 8..pc * 8 + 8];
            let (code, k) =
                (u16::from_ne_bytes([i[0], i[1]]), u32::from_ne_bytes([i[4], i[5], i[6], i[7]]));
            pc += 1;
            let mut branch = |yes: bool| pc += usize::from(if yes { i[2] } else { i[3] });
            match code {
                LOAD => {
                    a = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap())
                }
                AND => a &= k,
                JUMP_EQUAL => branch(a == k),
                JUMP_GREATER => branch(a > k),
                JUMP_GREATER_EQUAL => branch(a >= k),
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn default_profile_allows_and_refuses() {
        let program = compile(&default_profile(&[])).unwrap();
        let call = |name: &str, first: u64| {
            run(&program, syscalls::number(name).unwrap(), [first, 0, 0, 0, 0, 0])
        };
        let refused = ERRNO | libc::EPERM.cast_unsigned();
        assert_eq!(
            (call("read", 0), call("mount", 0), call("unshare", 0)),
            (ALLOW, refused, refused)
        );
        assert_eq!((call("clone", 0x11), call("clone", 0x1000_0000)), (ALLOW, refused));
        assert_eq!(call("clone3", 0), ERRNO | libc::ENOSYS.cast_unsigned());
        assert_eq!((call("socket", 2), call("socket", 40)), (ALLOW, refused));
        assert_eq!((call("personality", 0), call("personality", 1)), (ALLOW, refused));
        let admin = compile(&default_profile(&[21])).unwrap();
        assert_eq!(run(&admin, syscalls::number("mount").unwrap(), [0; 6]), ALLOW);
        assert_eq!(run(&program, 0x4000_0001, [0; 6]), refused);
    }

    #[test]
    fn all_operators_compare_64_bits() {
        let cases: [(&str, fn(u64, u64) -> bool); 6] = [
            ("SCMP_CMP_EQ", |a, b| a == b),
            ("SCMP_CMP_NE", |a, b| a != b),
            ("SCMP_CMP_GT", |a, b| a > b),
            ("SCMP_CMP_GE", |a, b| a >= b),
            ("SCMP_CMP_LT", |a, b| a < b),
            ("SCMP_CMP_LE", |a, b| a <= b),
        ];
        let values = [0, 1, 5, 6, u64::from(u32::MAX), 1 << 32, (1 << 32) + 5, u64::MAX];
        for (name, holds) in cases {
            for value in values {
                let text = serde_json::json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_KILL",
                                   "args": [{ "index": 1, "value": 7, "valueTwo": 0, "op": "SCMP_CMP_NE" }, { "index": 2, "value": value, "op": name }] }],
                });
                let file: File = serde_json::from_value(text).unwrap();
                let program = compile(&file.resolve().unwrap()).unwrap();
                let read = syscalls::number("read").unwrap();
                for argument in values {
                    let want = if holds(argument, value) { KILL_THREAD } else { ALLOW };
                    assert_eq!(
                        run(&program, read, [0, 0, argument, 0, 0, 0]),
                        want,
                        "{argument} {name} {value}"
                    );
                    assert_eq!(run(&program, read, [0, 7, argument, 0, 0, 0]), ALLOW);
                }
            }
        }
    }

    #[test]
    fn bad_profiles_are_refused() {
        for text in [
            r#"{"defaultAction":"FLY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        ] {
            assert!(serde_json::from_str::<File>(text).unwrap().resolve().is_err(), "{text}");
        }
        assert!(serde_json::from_str::<File>("{}").is_err());
    }
}
