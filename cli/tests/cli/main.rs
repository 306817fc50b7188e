//! The program `ebb` as its users meet it: started, fed, read and signalled from outside.

mod dev;
mod explain;
mod operator;
mod played;
mod run;
