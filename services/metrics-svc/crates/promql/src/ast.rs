//! The expression tree.

use std::fmt;

use metrics_model::Matcher;

/// What an expression yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// One number per step.
    Scalar,
    /// One sample per series.
    Vector,
    /// Many samples per series.
    Matrix,
    /// Text.
    Text,
}

impl ValueType {
    /// The word the HTTP API uses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::Text => "string",
        }
    }

    /// The words error texts use.
    pub(crate) fn described(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::Text => "string",
        }
    }
}

/// The `@` modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since the epoch.
    Time(i64),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// `name{matchers} offset d @ t`
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// The name before the braces, empty if there is none.
    pub name: String,
    /// All conditions, the name's included.
    pub matchers: Vec<Matcher>,
    /// Milliseconds to look back.
    pub offset: i64,
    /// Fixed time.
    pub at: Option<At>,
}

/// `expr[range:step]`
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Box<Expr>,
    /// Milliseconds.
    pub range: i64,
    /// Milliseconds; `None` takes the default resolution.
    pub step: Option<i64>,
    /// Milliseconds.
    pub offset: i64,
    /// Fixed time.
    pub at: Option<At>,
}

/// Which side may have several series per group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    /// Neither.
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// How two vectors are matched.
#[derive(Debug, Clone, PartialEq)]
pub struct Matching {
    /// Cardinality.
    pub card: Cardinality,
    /// `on` (true) or `ignoring`.
    pub on: bool,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Labels taken over from the "one" side.
    pub include: Vec<String>,
}

/// Binary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after their signs")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Lt,
    Gt,
    Le,
    Ge,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    pub(crate) fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Lt | Self::Gt | Self::Le | Self::Ge)
    }

    pub(crate) fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    pub(crate) fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Eq | Self::Ne | Self::Lt | Self::Gt | Self::Le | Self::Ge => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 6,
        }
    }
}

impl fmt::Display for BinaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Gt => ">",
            Self::Le => "<=",
            Self::Ge => ">=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        })
    }
}

/// Aggregation operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the language")]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
}

impl AggregateOp {
    pub(crate) const ALL: &'static [(&'static str, Self)] = &[
        ("sum", Self::Sum),
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("count", Self::Count),
        ("group", Self::Group),
        ("stddev", Self::Stddev),
        ("stdvar", Self::Stdvar),
        ("topk", Self::Topk),
        ("bottomk", Self::Bottomk),
        ("quantile", Self::Quantile),
        ("count_values", Self::CountValues),
    ];

    pub(crate) fn takes_parameter(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk | Self::Quantile | Self::CountValues)
    }
}

impl fmt::Display for AggregateOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, op)| op == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// An aggregation.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Box<Expr>,
    /// First argument of topk and its like.
    pub param: Option<Box<Expr>>,
    /// Labels of `by` or `without`.
    pub labels: Vec<String>,
    /// Whether `labels` are those to drop.
    pub without: bool,
}

/// A binary operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// Operator.
    pub op: BinaryOp,
    /// Left.
    pub lhs: Box<Expr>,
    /// Right.
    pub rhs: Box<Expr>,
    /// How vectors are matched.
    pub matching: Matching,
    /// `bool` modifier.
    pub return_bool: bool,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `1.5`
    Number(f64),
    /// `"text"`
    Text(String),
    /// Instant vector selector.
    Vector(Selector),
    /// Range vector selector and its milliseconds.
    Matrix(Selector, i64),
    /// Subquery.
    Subquery(Subquery),
    /// Function call.
    Call(&'static crate::check::Function, Vec<Expr>),
    /// Aggregation.
    Aggregate(Aggregate),
    /// Binary operation.
    Binary(Binary),
    /// `-expr`
    Negate(Box<Expr>),
    /// `(expr)`
    Paren(Box<Expr>),
}

impl Expr {
    /// What it yields.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Number(_) => ValueType::Scalar,
            Self::Text(_) => ValueType::Text,
            Self::Vector(_) | Self::Aggregate(_) => ValueType::Vector,
            Self::Matrix(..) | Self::Subquery(_) => ValueType::Matrix,
            Self::Call(function, _) => function.returns,
            Self::Binary(b) => match (b.lhs.value_type(), b.rhs.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
            Self::Negate(inner) | Self::Paren(inner) => inner.value_type(),
        }
    }

    /// Without the parentheses around it.
    pub(crate) fn bare(&self) -> &Self {
        match self {
            Self::Paren(inner) => inner.bare(),
            other => other,
        }
    }
}
