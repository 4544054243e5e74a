#pragma once
#include "hypervisor/domain.hpp"
#include "vmrepl/nbd/server.hpp"
