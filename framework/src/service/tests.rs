//! Tests of the service against a scripted master.
