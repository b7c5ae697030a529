//! Builds the tree: precedence climbing over tokens, types checked as nodes are made.

use metrics_model::Matcher;

use crate::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Cardinality, Expr, Matching, Selector, Subquery,
    ValueType,
};
use crate::check::{check_binary, check_call, expect, function};
use crate::error::ParseError;
use crate::lexer::{Token, lex};

/// Deepest nesting; beyond it the text is refused before the stack is.
const MAX_DEPTH: usize = 200;
/// Longest expression in bytes.
const MAX_LENGTH: usize = 1 << 20;

/// Parses an expression and checks its types.
///
/// # Errors
/// Says where and why in Prometheus' form.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text)?;
    if *parser.peek() == Token::End {
        return Err(parser.fail("no expression found in input"));
    }
    let expr = parser.expression(0)?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.fail(format!("unexpected {}", other.described()))),
    }
}

/// Parses a series selector such as `up{job="x"}`.
///
/// # Errors
/// As [`parse`]; modifiers are refused.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    match parse(text)? {
        Expr::Vector(Selector { matchers, offset: 0, at: None, .. }) => Ok(matchers),
        _ => Err(ParseError::at(text, 0, "expected a series selector without modifiers")),
    }
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, usize)>,
    pub(crate) at: usize,
    depth: usize,
}

pub(crate) type Result<T, E = ParseError> = std::result::Result<T, E>;

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        if text.len() > MAX_LENGTH {
            return Err(ParseError::at(
                text,
                0,
                format!("expression is longer than {MAX_LENGTH} bytes"),
            ));
        }
        Ok(Self { text, tokens: lex(text)?, at: 0, depth: 0 })
    }

    pub(crate) fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    pub(crate) fn peek_after(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    fn offset(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    pub(crate) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    pub(crate) fn fail(&self, reason: impl Into<String>) -> ParseError {
        ParseError::at(self.text, self.offset(), reason)
    }

    pub(crate) fn fail_at(&self, offset: usize, reason: impl Into<String>) -> ParseError {
        ParseError::at(self.text, offset, reason)
    }

    pub(crate) fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(s) if *s == sign)
    }

    pub(crate) fn eat(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn require(&mut self, sign: &str, context: &str) -> Result<()> {
        if self.eat(sign) {
            return Ok(());
        }
        Err(self.fail(format!(
            "unexpected {} in {context}, expected {sign:?}",
            self.peek().described()
        )))
    }

    fn keyword(&self) -> Option<String> {
        match self.peek() {
            Token::Ident(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        }
    }

    fn eat_keyword(&mut self, word: &str) -> bool {
        let found = self.keyword().as_deref() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn operator(&self) -> Option<BinaryOp> {
        use BinaryOp as B;
        Some(match self.peek() {
            Token::Sign(sign) => match *sign {
                "+" => B::Add,
                "-" => B::Sub,
                "*" => B::Mul,
                "/" => B::Div,
                "%" => B::Mod,
                "^" => B::Pow,
                "==" => B::Eq,
                "!=" => B::Ne,
                "<" => B::Lt,
                ">" => B::Gt,
                "<=" => B::Le,
                ">=" => B::Ge,
                _ => return None,
            },
            Token::Ident(_) => match self.keyword()?.as_str() {
                "and" => B::And,
                "or" => B::Or,
                "unless" => B::Unless,
                "atan2" => B::Atan2,
                _ => return None,
            },
            _ => return None,
        })
    }

    fn expression(&mut self, least: u8) -> Result<Expr> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fail("expression nests too deeply"));
        }
        let start = self.offset();
        let mut lhs = self.unary()?;
        while let Some(op) = self.operator().filter(|op| op.precedence() >= least) {
            let sign_at = self.offset();
            self.at += 1;
            let (return_bool, matching, explicit) = self.modifiers(op)?;
            // `^` binds to the right.
            let next = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
            let rhs = self.expression(next)?;
            if return_bool && !op.is_comparison() {
                return Err(
                    self.fail_at(sign_at, "bool modifier can only be used on comparison operators")
                );
            }
            check_binary(op, &lhs, &rhs, return_bool, explicit)
                .map_err(|reason| self.fail_at(start, reason))?;
            lhs = Expr::Binary(Binary {
                op,
                lhs: Box::new(lhs),
                rhs: Box::new(rhs),
                matching,
                return_bool,
            });
        }
        self.depth -= 1;
        Ok(lhs)
    }

    fn modifiers(&mut self, op: BinaryOp) -> Result<(bool, Matching, bool)> {
        let card = if op.is_set() { Cardinality::ManyToMany } else { Cardinality::OneToOne };
        let mut matching = Matching { card, on: false, labels: Vec::new(), include: Vec::new() };
        let return_bool = self.eat_keyword("bool");
        let on = self.eat_keyword("on");
        if !on && !self.eat_keyword("ignoring") {
            return Ok((return_bool, matching, false));
        }
        matching.on = on;
        matching.labels = self.label_list()?;
        for (word, card) in
            [("group_left", Cardinality::ManyToOne), ("group_right", Cardinality::OneToMany)]
        {
            if !self.eat_keyword(word) {
                continue;
            }
            if op.is_set() {
                return Err(self.fail(format!("no grouping allowed for \"{op}\" operation")));
            }
            matching.card = card;
            if self.is_sign("(") {
                matching.include = self.label_list()?;
            }
            if let Some(both) = matching.include.iter().find(|l| on && matching.labels.contains(l))
            {
                return Err(self.fail(format!(
                    "label \"{both}\" must not occur in ON and GROUP clause at once"
                )));
            }
        }
        Ok((return_bool, matching, true))
    }

    fn label_list(&mut self) -> Result<Vec<String>> {
        self.require("(", "grouping opts")?;
        let mut labels = Vec::new();
        while !self.eat(")") {
            match self.next() {
                Token::Ident(name) | Token::Text(name) => labels.push(name),
                other => {
                    self.at -= 1;
                    return Err(self.fail(format!(
                        "unexpected {} in grouping opts, expected label",
                        other.described()
                    )));
                }
            }
            if !self.eat(",") && !self.is_sign(")") {
                let got = self.peek().described();
                return Err(self
                    .fail(format!("unexpected {got} in grouping opts, expected \",\" or \")\"")));
            }
        }
        Ok(labels)
    }

    fn unary(&mut self) -> Result<Expr> {
        let start = self.offset();
        for (sign, minus) in [("-", true), ("+", false)] {
            if !self.eat(sign) {
                continue;
            }
            let inner = self.expression(BinaryOp::Pow.precedence())?;
            let kind = inner.value_type();
            if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
                let reason = format!(
                    "unary expression only allowed on expressions of type scalar or instant vector, got \"{}\"",
                    kind.described()
                );
                return Err(self.fail_at(start, reason));
            }
            return Ok(match inner {
                inner if !minus => inner,
                Expr::Number(number) => Expr::Number(-number),
                inner => Expr::Negate(Box::new(inner)),
            });
        }
        let primary = self.primary()?;
        self.postfix(primary, start)
    }

    fn postfix(&mut self, mut expr: Expr, start: usize) -> Result<Expr> {
        loop {
            if self.is_sign("[") {
                expr = self.range(expr, start)?;
            } else if self.keyword().as_deref() == Some("offset") {
                self.at += 1;
                let millis = self.signed_duration("offset")?;
                let slot = self.modifier_slot(&mut expr, "offset", start)?;
                if *slot.0 != 0 {
                    return Err(self.fail_at(start, "offset may not be set multiple times"));
                }
                *slot.0 = millis;
            } else if self.is_sign("@") {
                self.at += 1;
                let at = self.at_time()?;
                let slot = self.modifier_slot(&mut expr, "@", start)?;
                if slot.1.is_some() {
                    return Err(self.fail_at(start, "@ <timestamp> may not be set multiple times"));
                }
                *slot.1 = Some(at);
            } else {
                return Ok(expr);
            }
        }
    }

    fn modifier_slot<'e>(
        &self,
        expr: &'e mut Expr,
        word: &str,
        start: usize,
    ) -> Result<(&'e mut i64, &'e mut Option<At>)> {
        match expr {
            Expr::Vector(s) | Expr::Matrix(s, _) => Ok((&mut s.offset, &mut s.at)),
            Expr::Subquery(s) => Ok((&mut s.offset, &mut s.at)),
            _ => Err(self.fail_at(
                start,
                format!("{word} modifier must be preceded by an instant vector selector or range vector selector or a subquery"),
            )),
        }
    }

    fn range(&mut self, expr: Expr, start: usize) -> Result<Expr> {
        self.require("[", "range")?;
        let range = self.duration("subquery or range selector")?;
        if range <= 0 {
            return Err(self.fail_at(start, "duration must be greater than 0"));
        }
        if self.eat(":") {
            let step =
                if self.is_sign("]") { None } else { Some(self.duration("subquery selector")?) };
            if step.is_some_and(|step| step <= 0) {
                return Err(self.fail_at(start, "duration must be greater than 0"));
            }
            self.require("]", "subquery selector")?;
            if expr.value_type() != ValueType::Vector && expr.value_type() != ValueType::Scalar {
                let reason = format!(
                    "subquery is only allowed on instant vector, got {} instead",
                    expr.value_type().described()
                );
                return Err(self.fail_at(start, reason));
            }
            return Ok(Expr::Subquery(Subquery {
                expr: Box::new(expr),
                range,
                step,
                offset: 0,
                at: None,
            }));
        }
        self.require("]", "subquery or range selector")?;
        match expr {
            Expr::Vector(selector) if selector.offset != 0 => {
                Err(self.fail_at(start, "no offset modifiers allowed before range"))
            }
            Expr::Vector(selector) if selector.at.is_some() => {
                Err(self.fail_at(start, "no @ modifiers allowed before range"))
            }
            Expr::Vector(selector) => Ok(Expr::Matrix(selector, range)),
            _ => Err(self.fail_at(start, "ranges only allowed for vector selectors")),
        }
    }

    fn primary(&mut self) -> Result<Expr> {
        let start = self.offset();
        match self.next() {
            Token::Number(number) => Ok(Expr::Number(number)),
            Token::Duration(millis) => Ok(Expr::Number(millis as f64 / 1000.0)),
            Token::Text(text) => Ok(Expr::Text(text)),
            Token::Sign("(") => {
                let inner = self.expression(0)?;
                self.require(")", "paren expression")?;
                Ok(Expr::Paren(Box::new(inner)))
            }
            Token::Sign("{") => {
                self.at -= 1;
                self.selector(String::new(), start)
            }
            Token::Ident(name) => self.named(name, start),
            other => {
                self.at -= 1;
                Err(self.fail(format!("unexpected {}", other.described())))
            }
        }
    }

    pub(crate) fn named(&mut self, name: String, start: usize) -> Result<Expr> {
        let lower = name.to_ascii_lowercase();
        let aggregate = AggregateOp::ALL.iter().find(|(n, _)| *n == lower).map(|(_, op)| *op);
        if let Some(op) = aggregate {
            let grouped = matches!(self.keyword().as_deref(), Some("by" | "without"));
            if grouped || self.is_sign("(") {
                return self.aggregate(op, start);
            }
        }
        if self.is_sign("(") {
            let function = function(&name).ok_or_else(|| {
                self.fail_at(start, format!("unknown function with name {name:?}"))
            })?;
            let args = self.arguments()?;
            check_call(function, &args).map_err(|reason| self.fail_at(start, reason))?;
            return Ok(Expr::Call(function, args));
        }
        if lower == "inf" {
            return Ok(Expr::Number(f64::INFINITY));
        }
        if lower == "nan" {
            return Ok(Expr::Number(f64::NAN));
        }
        self.selector(name, start)
    }

    fn arguments(&mut self) -> Result<Vec<Expr>> {
        self.require("(", "function call")?;
        let mut args = Vec::new();
        while !self.eat(")") {
            args.push(self.expression(0)?);
            if self.eat(",") {
                if self.is_sign(")") {
                    return Err(self.fail("trailing commas not allowed in function call args"));
                }
            } else if !self.is_sign(")") {
                let got = self.peek().described();
                return Err(self.fail(format!(
                    "unexpected {got} in function call args, expected \",\" or \")\""
                )));
            }
        }
        Ok(args)
    }

    fn aggregate(&mut self, op: AggregateOp, start: usize) -> Result<Expr> {
        let mut grouping = self.grouping()?;
        let mut args = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let (without, labels) = grouping.unwrap_or_default();
        let wanted = 1 + usize::from(op.takes_parameter());
        if args.len() != wanted {
            let reason = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                args.len()
            );
            return Err(self.fail_at(start, reason));
        }
        let expr = args
            .pop()
            .ok_or_else(|| self.fail_at(start, "no arguments for aggregate expression provided"))?;
        expect(&expr, ValueType::Vector, "aggregation expression")
            .map_err(|reason| self.fail_at(start, reason))?;
        let param = args.pop();
        if let Some(param) = &param {
            let want =
                if op == AggregateOp::CountValues { ValueType::Text } else { ValueType::Scalar };
            expect(param, want, "aggregation parameter")
                .map_err(|reason| self.fail_at(start, reason))?;
        }
        Ok(Expr::Aggregate(Aggregate {
            op,
            expr: Box::new(expr),
            param: param.map(Box::new),
            labels,
            without,
        }))
    }

    fn grouping(&mut self) -> Result<Option<(bool, Vec<String>)>> {
        for (word, without) in [("by", false), ("without", true)] {
            if self.eat_keyword(word) {
                return Ok(Some((without, self.label_list()?)));
            }
        }
        Ok(None)
    }
}
