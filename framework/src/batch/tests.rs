//! Tests of the batch against a scripted master.
