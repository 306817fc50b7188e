//! Rules by the names that tables of figures give them.

use anyhow::{Context, Result, bail};

use super::Rule;

impl Rule {
    /// The rule of a name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self> {
        let rule = match name {
            "no-overcommit (limit)" => Self::Limits,
            "last value (no margin)" => Self::Last,
            "mesos fixed 40 % + threshold 0.8 (blue-yonder)" => Self::Fixed,
            "mesos/serenity slack (cap 0.7)" => Self::Serenity,
            "volcano extend (ratio 60 %)" => Self::Volcano,
            "koordinator batch (usage policy)" => Self::KoordinatorBatch,
            "koordinator mid (p95/p98 decayed, +10 %, cold 24 h)" => {
                Self::KoordinatorMid { cold_hours: 24.0 }
            }
            "koordinator mid, cold start 2 h" => Self::KoordinatorMid { cold_hours: 2.0 },
            "katalyst canonical (x1.25 cpu, x1.1 mem)" => Self::Katalyst,
            "crane-like (max(now, 1.2 x same hours yesterday))" => Self::Crane,
            "borg-reclamation-like (margin 25 %, half-life 1 h)" => Self::BorgReclamation,
            _ => return Self::composed(name).with_context(|| format!("no rule is named {name:?}")),
        };
        Ok(rule)
    }

    fn composed(name: &str) -> Result<Self> {
        if let Some(inner) = name.strip_prefix("combined max(") {
            let inner = inner.strip_suffix(')').context("a bracket is open")?;
            let (conformal, surge) = inner.split_once(", ").context("one of two is missing")?;
            return Ok(Self::Max(vec![
                conformal_of(conformal)?,
                Self::named(surge)?,
            ]));
        }
        if let Some(hours) = name.strip_prefix("max(N-sigma 5, RC-like p99) ") {
            let hours = window(hours)?;
            return Ok(Self::Max(vec![
                Self::Sigma {
                    deviations: 5.0,
                    hours,
                },
                Self::TaskQuantile {
                    share: 0.99,
                    hours,
                    factor: 1.0,
                },
            ]));
        }
        if let Some((surge, floor)) = name.split_once(", floor ") {
            let hours = floor
                .strip_prefix("machine p100 ")
                .context("an unknown floor")?;
            let floor = Self::MachineQuantile {
                share: 1.0,
                hours: number(hours.strip_suffix('h').context("no hours")?)?,
                factor: 1.0,
            };
            return Ok(Self::Max(vec![Self::named(surge)?, floor]));
        }
        Self::of_words(&name.split(' ').collect::<Vec<_>>())
    }

    fn of_words(words: &[&str]) -> Result<Self> {
        let factor = |rest: &[&str]| match rest {
            [] => Ok(1.0),
            [word] => number(word.strip_prefix('x').context("an unknown ending")?),
            _ => bail!("too many words"),
        };
        let share = |word: &str| -> Result<f64> {
            Ok(number(word.strip_prefix('p').context("no quantile")?)? / 100.0)
        };
        Ok(match words {
            ["borg-default", phi] => Self::Share(assigned("phi", phi)?),
            ["N-sigma", deviations, hours] => Self::Sigma {
                deviations: assigned("N", deviations)?,
                hours: window(hours)?,
            },
            ["RC-like", quantile, hours, rest @ ..] => Self::TaskQuantile {
                share: share(quantile)?,
                hours: window(hours)?,
                factor: factor(rest)?,
            },
            ["machine", quantile, hours, rest @ ..] => Self::MachineQuantile {
                share: share(quantile)?,
                hours: window(hours)?,
                factor: factor(rest)?,
            },
            ["k-surge", weights, hours] => Self::Surge {
                weights: weights.split('+').map(number).collect::<Result<_>>()?,
                hours: match hours.starts_with("W=") {
                    true => window(hours)?,
                    false => number(hours.trim_end_matches('h'))?,
                },
            },
            ["conformal", alpha, hours] => Self::Conformal {
                alpha: assigned("alpha", alpha)?,
                hours: window(hours)?,
            },
            ["recalibrated", base, alpha, hours] => Self::Recalibrated {
                base: Box::new(match *base {
                    "rc99" => Self::TaskQuantile {
                        share: 0.99,
                        hours: 2.0,
                        factor: 1.0,
                    },
                    "tmax24" => Self::TaskQuantile {
                        share: 1.0,
                        hours: 24.0,
                        factor: 1.0,
                    },
                    other => bail!("{other} cannot be recalibrated"),
                }),
                alpha: assigned("alpha", alpha)?,
                hours: window(hours)?,
            },
            ["ORACLE", horizon] => Self::Oracle {
                bins: assigned("H", horizon)? as usize,
            },
            _ => bail!("the words are unknown"),
        })
    }
}

/// `conformal 0.02 72h`, as it stands in the name of a combination.
fn conformal_of(text: &str) -> Result<Rule> {
    let words: Vec<&str> = text.split(' ').collect();
    let ["conformal", alpha, hours] = words[..] else {
        bail!("{text:?} is not conformal");
    };
    Ok(Rule::Conformal {
        alpha: number(alpha)?,
        hours: number(hours.strip_suffix('h').context("no hours")?)?,
    })
}

fn number(text: &str) -> Result<f64> {
    text.parse()
        .with_context(|| format!("{text:?} is no number"))
}

fn assigned(name: &str, word: &str) -> Result<f64> {
    let value = word
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('='));
    number(value.with_context(|| format!("{word:?} gives no {name}"))?)
}

fn window(word: &str) -> Result<f64> {
    let hours = word
        .strip_prefix("W=")
        .and_then(|rest| rest.strip_suffix('h'));
    number(hours.with_context(|| format!("{word:?} is no window"))?)
}
