//! Function calls.

use metrics_model::{Labels, MatchOp};

use crate::ast::{Expr, ValueType};
use crate::check::Function;
use crate::error::EvalError;
use crate::eval::Eval;
use crate::points::each_series;
use crate::value::{Series, Value, is_none, none, unite};
use crate::{histogram, label_functions, range_functions, selector};

pub(crate) fn call(
    eval: &Eval<'_>,
    function: &Function,
    args: &[Expr],
) -> Result<Value, EvalError> {
    let name = function.name;
    match name {
        "time" => {
            return Ok(Value::Scalar(
                (0..eval.steps).map(|s| eval.time(s) as f64 / 1000.0).collect(),
            ));
        }
        "pi" => return Ok(Value::Scalar(vec![std::f64::consts::PI; eval.steps])),
        "scalar" => return scalar(eval, &args[0]),
        "vector" => return Ok(eval.unlabelled(eval.scalar(&args[0])?)),
        "absent" => return absent(eval, &args[0]),
        "absent_over_time" => return absent_over_time(eval, &args[0]),
        _ => {}
    }
    let matrix_at = function.args.iter().position(|kind| *kind == ValueType::Matrix);
    let series = match (name, matrix_at) {
        (_, Some(at)) => over_range(eval, name, &args[at], args.get(1 - at))?,
        ("timestamp", _) => timestamp(eval, &args[0])?,
        ("label_replace", _) => label_functions::replace(eval, args)?,
        ("label_join", _) => label_functions::join(eval, args)?,
        ("histogram_quantile", _) => histogram::quantile(eval, &args[0], &args[1])?,
        ("sort", _) => sorted(eval, &args[0], false)?,
        ("sort_desc", _) => sorted(eval, &args[0], true)?,
        ("clamp" | "clamp_min" | "clamp_max", _) => clamp(eval, name, args)?,
        ("round", _) => round(eval, args)?,
        // These read native histograms; of floats they make nothing.
        (native, _) if native.starts_with("histogram_") => {
            eval.vector(&args[0])?;
            Vec::new()
        }
        _ => match (date_part(name), math(name)) {
            (Some(part), _) => date(eval, args, part)?,
            (None, Some(f)) => eval.map(eval.vector(&args[0])?, f)?,
            (None, None) => {
                return Err(EvalError::execution(format!("unknown function with name {name:?}")));
            }
        },
    };
    Ok(Value::Vector(series))
}

fn over_range(
    eval: &Eval<'_>,
    name: &str,
    arg: &Expr,
    scalar: Option<&Expr>,
) -> Result<Vec<Series>, EvalError> {
    let scalars = scalar.map(|expr| eval.scalar(expr)).transpose()?;
    let keeps_name = name == "last_over_time";
    let mut out = Vec::new();
    each_series(eval, arg, |labels, windows| {
        let labels = if keeps_name { labels.clone() } else { labels.without_name() };
        let mut series = Series::empty(labels, eval.steps);
        let mut any = false;
        windows(&mut |step, window| {
            let scalar = scalars.as_ref().map_or(f64::NAN, |s| s[step]);
            if let Some(value) = range_functions::apply(name, window, scalar, eval.time(step)) {
                series.values[step] = value;
                any = true;
            }
            Ok(())
        })?;
        if any {
            eval.budget.take(eval.steps)?;
            out.push(series);
        }
        Ok(())
    })?;
    unite(out)
}

fn scalar(eval: &Eval<'_>, arg: &Expr) -> Result<Value, EvalError> {
    let series = eval.vector(arg)?;
    let values = (0..eval.steps).map(|step| {
        let mut present = series.iter().map(|s| s.values[step]).filter(|v| !is_none(*v));
        match (present.next(), present.next()) {
            (Some(only), None) => only,
            _ => f64::NAN,
        }
    });
    Ok(Value::Scalar(values.collect()))
}

/// Labels that `absent` gives its result: those the selector pins to one value.
fn pinned(expr: &Expr) -> Labels {
    let matchers = match expr.bare() {
        Expr::Vector(s) | Expr::Matrix(s, _) => &s.matchers,
        _ => return Labels::default(),
    };
    let once = |name: &str| matchers.iter().filter(|m| m.name() == name).count() == 1;
    let pairs = matchers.iter().filter(|m| {
        m.op() == MatchOp::Equal && m.name() != metrics_model::METRIC_NAME && once(m.name())
    });
    Labels::from_pairs(pairs.map(|m| (m.name(), m.value())))
}

fn missing(eval: &Eval<'_>, labels: Labels, present: &[bool]) -> Value {
    let values: Vec<f64> = present.iter().map(|p| if *p { none() } else { 1.0 }).collect();
    let series = Series { labels, values };
    debug_assert_eq!(present.len(), eval.steps);
    Value::Vector(if series.has_any() { vec![series] } else { Vec::new() })
}

fn absent(eval: &Eval<'_>, arg: &Expr) -> Result<Value, EvalError> {
    let series = eval.vector(arg)?;
    let present: Vec<bool> =
        (0..eval.steps).map(|step| series.iter().any(|s| !is_none(s.values[step]))).collect();
    Ok(missing(eval, pinned(arg), &present))
}

fn absent_over_time(eval: &Eval<'_>, arg: &Expr) -> Result<Value, EvalError> {
    let mut present = vec![false; eval.steps];
    each_series(eval, arg, |_, windows| {
        windows(&mut |step, window| {
            present[step] |= !window.values.is_empty();
            Ok(())
        })
    })?;
    Ok(missing(eval, pinned(arg), &present))
}

fn timestamp(eval: &Eval<'_>, arg: &Expr) -> Result<Vec<Series>, EvalError> {
    if let Expr::Vector(s) = arg.bare() {
        let mut series = selector::instant(eval, s, true)?;
        for one in &mut series {
            one.labels = one.labels.without_name();
        }
        return unite(series);
    }
    let mut series = eval.vector(arg)?;
    for one in &mut series {
        one.labels = one.labels.without_name();
        for (step, value) in one.values.iter_mut().enumerate() {
            if !is_none(*value) {
                *value = eval.time(step) as f64 / 1000.0;
            }
        }
    }
    unite(series)
}

fn sorted(eval: &Eval<'_>, arg: &Expr, descending: bool) -> Result<Vec<Series>, EvalError> {
    let mut series = eval.vector(arg)?;
    if eval.steps == 1 {
        // NaN goes last either way.
        series.sort_by(|a, b| {
            let (a, b) = (a.values[0], b.values[0]);
            match (a.is_nan(), b.is_nan()) {
                (true, true) => std::cmp::Ordering::Equal,
                (true, false) => std::cmp::Ordering::Greater,
                (false, true) => std::cmp::Ordering::Less,
                _ if descending => b.total_cmp(&a),
                _ => a.total_cmp(&b),
            }
        });
    }
    Ok(series)
}

fn with_scalars(
    eval: &Eval<'_>,
    series: Vec<Series>,
    f: impl Fn(usize, f64) -> f64,
) -> Result<Vec<Series>, EvalError> {
    let mut series = series;
    for one in &mut series {
        one.labels = one.labels.without_name();
        for (step, value) in one.values.iter_mut().enumerate() {
            if !is_none(*value) {
                *value = f(step, *value);
            }
        }
    }
    eval.budget.take(0)?;
    unite(series)
}

fn clamp(eval: &Eval<'_>, name: &str, args: &[Expr]) -> Result<Vec<Series>, EvalError> {
    let bounds = |at: usize| args.get(at).map(|expr| eval.scalar(expr)).transpose();
    let (low, high) = match name {
        "clamp_min" => (bounds(1)?, None),
        "clamp_max" => (None, bounds(1)?),
        _ => (bounds(1)?, bounds(2)?),
    };
    let mut series = eval.vector(&args[0])?;
    if let (Some(low), Some(high)) = (&low, &high) {
        for one in &mut series {
            for step in 0..eval.steps {
                if high[step] < low[step] {
                    one.values[step] = none();
                }
            }
        }
    }
    // Go's Max and Min: NaN wins.
    let max = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
    let min = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) };
    with_scalars(eval, series, |step, value| {
        let value = high.as_ref().map_or(value, |high| min(high[step], value));
        low.as_ref().map_or(value, |low| max(low[step], value))
    })
}

fn round(eval: &Eval<'_>, args: &[Expr]) -> Result<Vec<Series>, EvalError> {
    let to = match args.get(1) {
        Some(expr) => eval.scalar(expr)?,
        None => vec![1.0; eval.steps],
    };
    with_scalars(eval, eval.vector(&args[0])?, |step, value| {
        let inverse = 1.0 / to[step];
        (value * inverse + 0.5).floor() / inverse
    })
}

fn date(
    eval: &Eval<'_>,
    args: &[Expr],
    part: fn(&jiff::civil::DateTime) -> i16,
) -> Result<Vec<Series>, EvalError> {
    let series = match args.first() {
        Some(arg) => eval.vector(arg)?,
        None => {
            let now = (0..eval.steps).map(|step| (eval.time(step) / 1000) as f64).collect();
            eval.unlabelled(now).into_vector()
        }
    };
    eval.map(series, |seconds| {
        let stamp =
            jiff::Timestamp::from_second(seconds as i64).ok().filter(|_| seconds.is_finite());
        stamp.map_or(f64::NAN, |t| f64::from(part(&t.to_zoned(jiff::tz::TimeZone::UTC).datetime())))
    })
}

fn date_part(name: &str) -> Option<fn(&jiff::civil::DateTime) -> i16> {
    Some(match name {
        "minute" => |d| d.minute().into(),
        "hour" => |d| d.hour().into(),
        "day_of_month" => |d| d.day().into(),
        "day_of_week" => |d| d.weekday().to_sunday_zero_offset().into(),
        "day_of_year" => |d| d.day_of_year(),
        "days_in_month" => |d| d.days_in_month().into(),
        "month" => |d| d.month().into(),
        "year" => |d| d.year(),
        _ => return None,
    })
}

fn math(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "deg" => f64::to_degrees,
        "rad" => f64::to_radians,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return None,
    })
}
