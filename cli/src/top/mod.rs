//! `ebb top`: a model of the cluster that changes keep up to date, and its rendering.

pub(crate) mod model;
pub(crate) mod render;
pub(crate) mod view;
