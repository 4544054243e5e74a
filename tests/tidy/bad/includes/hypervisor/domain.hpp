#pragma once
#include <vmrepl/base/up.hpp>

#include "vmrepl/nbd/server.hpp"
