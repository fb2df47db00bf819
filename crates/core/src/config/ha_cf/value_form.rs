//! The form that one value of a directive must have.

use alloc::{format, string::String};

use crate::{
    config::{
        address::ConfigFault,
        diag::shown,
        directives::{Directive, ValueForm},
        value::{boolean, time},
    },
    model::time::Duration,
};

/// A value whose form is right.
pub(super) enum HaCfValue {
    Time(Duration),
    Number(u32),
    Truth(bool),
    Text,
}

impl HaCfValue {
    pub(super) fn time(&self) -> Duration {
        if let Self::Time(time) = self { *time } else { Duration::ZERO }
    }

    pub(super) fn number(&self) -> u32 {
        if let Self::Number(number) = self { *number } else { 0 }
    }

    pub(super) fn truth(&self) -> bool {
        matches!(self, Self::Truth(true))
    }
}

pub(super) fn check_form(row: &Directive, text: &str) -> Result<HaCfValue, ConfigFault> {
    let wrong =
        |cure: String| Err((format!("`{}` is not a value for `{}`", shown(text), row.name), Some(cure)));
    match &row.form {
        ValueForm::Time { min_ms } => match time(text)? {
            time if time < Duration::from_millis(*min_ms) => wrong(format!("{min_ms} ms is the least")),
            time => Ok(HaCfValue::Time(time)),
        },
        ValueForm::Whole { min, max, .. } => match text.parse::<u32>() {
            Ok(number) if (*min..=*max).contains(&number) => Ok(HaCfValue::Number(number)),
            _ => wrong(format!("write a number {}", row.form.bounds())),
        },
        ValueForm::Boolean => {
            boolean(text).map_or_else(|| wrong("write `on` or `off`".into()), |is| Ok(HaCfValue::Truth(is)))
        }
        // If `on` and `off` are choices, all other words for them are accepted, too.
        ValueForm::Choice(words) => {
            let is_known = words.iter().any(|word| text.eq_ignore_ascii_case(word));
            if is_known || (words.contains(&"off") && boolean(text).is_some()) {
                return Ok(HaCfValue::Text);
            }
            wrong(format!("write one of {}", words.join(", ")))
        }
        ValueForm::Path if !text.starts_with('/') => wrong("write an absolute path".into()),
        ValueForm::Path | ValueForm::Each(_) | ValueForm::Fields { .. } | ValueForm::Line { .. } => {
            Ok(HaCfValue::Text)
        }
    }
}
