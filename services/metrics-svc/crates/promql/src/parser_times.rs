//! The part of the parser that reads durations and times.

use crate::ast::At;
use crate::lexer::Token;
use crate::parser::{Parser, Result};

impl Parser<'_> {
    pub(crate) fn at_time(&mut self) -> Result<At> {
        let minus = self.eat("-");
        if !minus {
            self.eat("+");
        }
        match self.next() {
            Token::Number(seconds) if seconds.is_finite() && seconds.abs() < 9e15 => {
                Ok(At::Time(((if minus { -seconds } else { seconds }) * 1000.0).round() as i64))
            }
            Token::Ident(word) if word == "start" || word == "end" => {
                self.require("(", "@")?;
                self.require(")", "@")?;
                Ok(if word == "start" { At::Start } else { At::End })
            }
            other => {
                self.at -= 1;
                Err(self.fail(format!("unexpected {} in @, expected timestamp", other.described())))
            }
        }
    }

    pub(crate) fn signed_duration(&mut self, context: &str) -> Result<i64> {
        let minus = self.eat("-");
        if !minus {
            self.eat("+");
        }
        let millis = self.duration(context)?;
        Ok(if minus { -millis } else { millis })
    }

    pub(crate) fn duration(&mut self, context: &str) -> Result<i64> {
        match self.next() {
            Token::Duration(millis) => Ok(millis),
            Token::Number(seconds) if seconds.is_finite() && seconds.abs() < 9e12 => {
                Ok((seconds * 1000.0).round() as i64)
            }
            other => {
                self.at -= 1;
                Err(self.fail(format!(
                    "unexpected {} in {context}, expected number or duration",
                    other.described()
                )))
            }
        }
    }
}
