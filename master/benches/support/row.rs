//! A row as `cargo xtask bench` reads it, on a line of its own: `{"case","metric","value","unit","bar"}`.

/// One figure, and the bound that it is to keep, if any.
pub struct Row {
    pub case: String,
    pub metric: String,
    pub value: f64,
    pub unit: &'static str,
    pub at_most: Option<f64>,
}

impl Row {
    pub fn print(&self) {
        let Self {
            case,
            metric,
            value,
            unit,
            at_most,
        } = self;
        let bar = at_most.map_or(String::new(), |bar| {
            format!(r#","bar":{{"at_most":{bar:?}}}"#)
        });
        println!(
            r#"{{"case":"{case}","metric":"{metric}","value":{value:.3},"unit":"{unit}"{bar}}}"#
        );
    }
}
