// TODO: start it
int start() { return 0; }  // a stub for now
int stop();                // not yet implemented
const char* where = "/home/somebody/havm";
const char* fine = "/var/lib/havm/vms; mkstemp wants XXXXXX; stubborn";
