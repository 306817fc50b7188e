//! Model of the ledger.
