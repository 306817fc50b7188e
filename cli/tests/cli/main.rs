//! The program `ebb` as its users meet it: started, fed, read and signalled from outside.

mod advise;
mod dev;
mod explain;
mod explain_quotas;
mod maintenance;
mod operator;
mod played;
mod quota;
mod run;
