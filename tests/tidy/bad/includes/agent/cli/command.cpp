#include "agent/control/http.hpp"
#include "agent/daemon/unit.hpp"
#include "vmrepl/base/up.hpp"
