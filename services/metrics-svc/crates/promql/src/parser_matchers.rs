//! The part of the parser that reads `name{label="value", ...}`.

use metrics_model::{METRIC_NAME, MatchOp, Matcher};

use crate::ast::{Expr, Selector};
use crate::lexer::Token;
use crate::parser::{Parser, Result};

impl Parser<'_> {
    pub(crate) fn selector(&mut self, name: String, start: usize) -> Result<Expr> {
        let mut selector = Selector { name, matchers: Vec::new(), offset: 0, at: None };
        if self.eat("{") {
            self.matchers(&mut selector)?;
        }
        if !selector.name.is_empty() {
            if let Some(other) = selector.matchers.iter().find(|m| m.name() == METRIC_NAME) {
                let reason = format!(
                    "metric name must not be set twice: \"{}\" or \"{}\"",
                    selector.name,
                    other.value()
                );
                return Err(self.fail_at(start, reason));
            }
            selector.matchers.push(Matcher::equal(METRIC_NAME, &selector.name));
        }
        if selector.matchers.iter().all(|m| m.matches("")) {
            return Err(
                self.fail_at(start, "vector selector must contain at least one non-empty matcher")
            );
        }
        Ok(Expr::Vector(selector))
    }

    fn matchers(&mut self, selector: &mut Selector) -> Result<()> {
        while !self.eat("}") {
            let quoted_name = matches!(
                (self.peek(), self.peek_after()),
                (Token::Text(_), Token::Sign("," | "}"))
            );
            match self.next() {
                Token::Text(name) if quoted_name => {
                    if !selector.name.is_empty() {
                        return Err(self.fail(format!(
                            "metric name must not be set twice: \"{}\" or \"{name}\"",
                            selector.name
                        )));
                    }
                    selector.name = name;
                }
                Token::Ident(label) | Token::Text(label) => {
                    let matcher = self.matcher(&label)?;
                    selector.matchers.push(matcher);
                }
                other => {
                    self.at -= 1;
                    return Err(self.fail(format!(
                        "unexpected {} in label matching, expected identifier or \"}}\"",
                        other.described()
                    )));
                }
            }
            if !self.eat(",") && !self.is_sign("}") {
                let got = self.peek().described();
                return Err(self.fail(format!(
                    "unexpected {got} in label matching, expected \",\" or \"}}\""
                )));
            }
        }
        Ok(())
    }

    fn matcher(&mut self, label: &str) -> Result<Matcher> {
        let op = match self.next() {
            Token::Sign("=") => MatchOp::Equal,
            Token::Sign("!=") => MatchOp::NotEqual,
            Token::Sign("=~") => MatchOp::Regex,
            Token::Sign("!~") => MatchOp::NotRegex,
            other => {
                self.at -= 1;
                return Err(self.fail(format!(
                    "unexpected {} in label matching, expected label matching operator",
                    other.described()
                )));
            }
        };
        match self.next() {
            Token::Text(value) => {
                Matcher::new(op, label, &value).map_err(|error| self.fail(error.to_string()))
            }
            other => {
                self.at -= 1;
                Err(self.fail(format!(
                    "unexpected {} in label matching, expected string",
                    other.described()
                )))
            }
        }
    }
}
