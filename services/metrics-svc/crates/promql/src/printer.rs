//! Writes a tree back as text.

use std::fmt;

use metrics_model::{METRIC_NAME, format_float, format_millis, is_metric_name};

use crate::ast::{Aggregate, At, Binary, Cardinality, Expr, Selector};

fn modifiers(f: &mut fmt::Formatter<'_>, offset: i64, at: Option<At>) -> fmt::Result {
    match at {
        Some(At::Time(millis)) => write!(f, " @ {:.3}", millis as f64 / 1000.0)?,
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        None => {}
    }
    match offset {
        0 => Ok(()),
        millis => write!(f, " offset {}", format_millis(millis)),
    }
}

fn series(f: &mut fmt::Formatter<'_>, selector: &Selector) -> fmt::Result {
    let plain = is_metric_name(&selector.name);
    if plain {
        f.write_str(&selector.name)?;
    }
    let hide = |m: &metrics_model::Matcher| plain && m.name() == METRIC_NAME;
    let parts: Vec<String> =
        selector.matchers.iter().filter(|m| !hide(m)).map(ToString::to_string).collect();
    if parts.is_empty() && plain { Ok(()) } else { write!(f, "{{{}}}", parts.join(",")) }
}

fn binary(f: &mut fmt::Formatter<'_>, b: &Binary) -> fmt::Result {
    write!(f, "{} {}", b.lhs, b.op)?;
    if b.return_bool {
        f.write_str(" bool")?;
    }
    let m = &b.matching;
    if m.on
        || !m.labels.is_empty()
        || !matches!(m.card, Cardinality::OneToOne | Cardinality::ManyToMany)
    {
        write!(f, " {} ({})", if m.on { "on" } else { "ignoring" }, m.labels.join(", "))?;
    }
    match m.card {
        Cardinality::ManyToOne => write!(f, " group_left ({})", m.include.join(", "))?,
        Cardinality::OneToMany => write!(f, " group_right ({})", m.include.join(", "))?,
        _ => {}
    }
    write!(f, " {}", b.rhs)
}

fn aggregate(f: &mut fmt::Formatter<'_>, a: &Aggregate) -> fmt::Result {
    write!(f, "{}", a.op)?;
    if a.without || !a.labels.is_empty() {
        write!(f, " {} ({}) ", if a.without { "without" } else { "by" }, a.labels.join(", "))?;
    }
    match &a.param {
        Some(param) => write!(f, "({param}, {})", a.expr),
        None => write!(f, "({})", a.expr),
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.write_str(&format_float(*number)),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Vector(s) => {
                series(f, s)?;
                modifiers(f, s.offset, s.at)
            }
            Self::Matrix(s, range) => {
                series(f, s)?;
                write!(f, "[{}]", format_millis(*range))?;
                modifiers(f, s.offset, s.at)
            }
            Self::Subquery(s) => {
                let step = s.step.map(format_millis).unwrap_or_default();
                write!(f, "{}[{}:{step}]", s.expr, format_millis(s.range))?;
                modifiers(f, s.offset, s.at)
            }
            Self::Call(function, args) => {
                let args: Vec<String> = args.iter().map(ToString::to_string).collect();
                write!(f, "{}({})", function.name, args.join(", "))
            }
            Self::Aggregate(a) => aggregate(f, a),
            Self::Binary(b) => binary(f, b),
            Self::Negate(inner) => write!(f, "-{inner}"),
            Self::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use crate::parse;

    #[test]
    fn printed_text_parses_to_the_same_tree() {
        for text in [
            "sum by (a, b) (rate(x{y=\"z\"}[5m] offset 1m))",
            "a + on (x) group_left (y) b",
            "-a ^ 2 * 3",
            "topk(3, a) or b unless ignoring (c) d",
            "max_over_time(a[1h:5m] @ 100.000 offset -5m)",
            "a > bool 1",
            "quantile without (x) (0.9, a)",
            "histogram_quantile(0.9, sum by (le) (rate(b[1m])))",
            "label_replace(a, \"x\", \"$1\", \"y\", \"(.*)\")",
            "{__name__=~\"a.*\"}",
            "a @ start() - 1h30m",
            "2 ^ 3 ^ 2",
        ] {
            let tree = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let printed = tree.to_string();
            assert_eq!(
                parse(&printed).unwrap_or_else(|e| panic!("{printed}: {e}")),
                tree,
                "{printed}"
            );
        }
    }

    #[test]
    fn errors_are_those_of_prometheus() {
        for (text, want) in [
            ("", "1:1: parse error: no expression found in input"),
            ("foo(", "1:1: parse error: unknown function with name \"foo\""),
            (
                "rate(a)",
                "1:1: parse error: expected type range vector in call to function \"rate\", got instant vector",
            ),
            (
                "1 and 2",
                "1:1: parse error: set operator \"and\" not allowed in binary scalar expression",
            ),
            ("1 == 1", "1:1: parse error: comparisons between scalars must use BOOL modifier"),
            ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
            (
                "a[5m] + 1",
                "1:1: parse error: binary expression must contain only scalar and instant vector types",
            ),
            (
                "sum(a",
                "1:6: parse error: unexpected end of input in function call args, expected \",\" or \")\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), want, "{text}");
        }
    }

    #[test]
    fn hostile_text_is_refused_in_bounded_time() {
        assert!(parse(&"(".repeat(100_000)).is_err());
        assert!(parse(&"-".repeat(100_000)).is_err());
        assert!(parse(&format!("{}a", "sum(".repeat(5000))).is_err());
        let pieces = [
            "sum", "(", ")", "{", "}", "[", "]", "5m", "a", "1", "by", ",", "\"x\"", "=~", "+",
            "offset", "@", "rate", ":",
        ];
        let mut rng = rand::rngs::StdRng::seed_from_u64(5);
        for _ in 0..30_000 {
            let text: Vec<&str> = (0..rng.random_range(1..14))
                .map(|_| pieces[rng.random_range(0..pieces.len())])
                .collect();
            if let Ok(tree) = parse(&text.join(" ")) {
                let printed = tree.to_string();
                assert!(parse(&printed).is_ok(), "{printed}");
            }
        }
    }
}
