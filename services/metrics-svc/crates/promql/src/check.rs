//! The table of functions, and the type rules of calls and operators.

use crate::ast::{BinaryOp, Expr, ValueType};

/// A function's signature.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Name.
    pub name: &'static str,
    /// Argument types; the last one repeats when the function is variadic.
    pub args: &'static [ValueType],
    /// How many trailing arguments may be left out; -1: the last may be given any number of times, or not at all.
    pub optional: i8,
    /// Result type.
    pub returns: ValueType,
}

use ValueType::{Matrix as M, Scalar as S, Text as T, Vector as V};

const fn f(
    name: &'static str,
    args: &'static [ValueType],
    optional: i8,
    returns: ValueType,
) -> Function {
    Function { name, args, optional, returns }
}

/// Every function, by name.
pub(crate) static FUNCTIONS: &[Function] = &[
    f("abs", &[V], 0, V),
    f("absent", &[V], 0, V),
    f("absent_over_time", &[M], 0, V),
    f("acos", &[V], 0, V),
    f("acosh", &[V], 0, V),
    f("asin", &[V], 0, V),
    f("asinh", &[V], 0, V),
    f("atan", &[V], 0, V),
    f("atanh", &[V], 0, V),
    f("avg_over_time", &[M], 0, V),
    f("ceil", &[V], 0, V),
    f("changes", &[M], 0, V),
    f("clamp", &[V, S, S], 0, V),
    f("clamp_max", &[V, S], 0, V),
    f("clamp_min", &[V, S], 0, V),
    f("cos", &[V], 0, V),
    f("cosh", &[V], 0, V),
    f("count_over_time", &[M], 0, V),
    f("day_of_month", &[V], 1, V),
    f("day_of_week", &[V], 1, V),
    f("day_of_year", &[V], 1, V),
    f("days_in_month", &[V], 1, V),
    f("deg", &[V], 0, V),
    f("delta", &[M], 0, V),
    f("deriv", &[M], 0, V),
    f("exp", &[V], 0, V),
    f("floor", &[V], 0, V),
    f("histogram_avg", &[V], 0, V),
    f("histogram_count", &[V], 0, V),
    f("histogram_quantile", &[S, V], 0, V),
    f("histogram_stddev", &[V], 0, V),
    f("histogram_stdvar", &[V], 0, V),
    f("histogram_sum", &[V], 0, V),
    f("hour", &[V], 1, V),
    f("idelta", &[M], 0, V),
    f("increase", &[M], 0, V),
    f("irate", &[M], 0, V),
    f("label_join", &[V, T, T, T], -1, V),
    f("label_replace", &[V, T, T, T, T], 0, V),
    f("last_over_time", &[M], 0, V),
    f("ln", &[V], 0, V),
    f("log10", &[V], 0, V),
    f("log2", &[V], 0, V),
    f("max_over_time", &[M], 0, V),
    f("min_over_time", &[M], 0, V),
    f("minute", &[V], 1, V),
    f("month", &[V], 1, V),
    f("pi", &[], 0, S),
    f("predict_linear", &[M, S], 0, V),
    f("present_over_time", &[M], 0, V),
    f("quantile_over_time", &[S, M], 0, V),
    f("rad", &[V], 0, V),
    f("rate", &[M], 0, V),
    f("resets", &[M], 0, V),
    f("round", &[V, S], 1, V),
    f("scalar", &[V], 0, S),
    f("sgn", &[V], 0, V),
    f("sin", &[V], 0, V),
    f("sinh", &[V], 0, V),
    f("sort", &[V], 0, V),
    f("sort_desc", &[V], 0, V),
    f("sqrt", &[V], 0, V),
    f("stddev_over_time", &[M], 0, V),
    f("stdvar_over_time", &[M], 0, V),
    f("sum_over_time", &[M], 0, V),
    f("tan", &[V], 0, V),
    f("tanh", &[V], 0, V),
    f("time", &[], 0, S),
    f("timestamp", &[V], 0, V),
    f("vector", &[S], 0, V),
    f("year", &[V], 1, V),
];

/// The function of that name.
pub(crate) fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok().map(|at| &FUNCTIONS[at])
}

/// Checks a call's arguments; the text is Prometheus'.
pub(crate) fn check_call(function: &Function, args: &[Expr]) -> Result<(), String> {
    let (name, most) = (function.name, function.args.len());
    let given = args.len();
    match function.optional {
        0 if given != most => {
            return Err(format!("expected {most} argument(s) in call to \"{name}\", got {given}"));
        }
        -1 if given < most - 1 => {
            return Err(format!(
                "expected at least {} argument(s) in call to \"{name}\", got {given}",
                most - 1
            ));
        }
        optional if optional > 0 => {
            let least = most - optional as usize;
            if given < least {
                return Err(format!(
                    "expected at least {least} argument(s) in call to \"{name}\", got {given}"
                ));
            }
            if given > most {
                return Err(format!(
                    "expected at most {most} argument(s) in call to \"{name}\", got {given}"
                ));
            }
        }
        _ => {}
    }
    for (at, arg) in args.iter().enumerate() {
        let Some(want) = function.args.get(at.min(most.saturating_sub(1))) else { continue };
        expect(arg, *want, &format!("call to function \"{name}\""))?;
    }
    Ok(())
}

/// Checks one operand.
pub(crate) fn expect(expr: &Expr, want: ValueType, context: &str) -> Result<(), String> {
    let got = expr.value_type();
    if got == want {
        return Ok(());
    }
    Err(format!("expected type {} in {context}, got {}", want.described(), got.described()))
}

/// Checks the operands of an operator.
pub(crate) fn check_binary(
    op: BinaryOp,
    lhs: &Expr,
    rhs: &Expr,
    with_bool: bool,
    with_matching: bool,
) -> Result<(), String> {
    let (left, right) = (lhs.value_type(), rhs.value_type());
    if [left, right].iter().any(|t| !matches!(t, S | V)) {
        return Err(
            "binary expression must contain only scalar and instant vector types".to_owned()
        );
    }
    if op.is_comparison() && !with_bool && left == S && right == S {
        return Err("comparisons between scalars must use BOOL modifier".to_owned());
    }
    if op.is_set() && (left == S || right == S) {
        return Err(format!("set operator \"{op}\" not allowed in binary scalar expression"));
    }
    if with_matching && (left != V || right != V) {
        return Err("vector matching only allowed between instant vectors".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
