#pragma once
#include <boost/asio/awaitable.hpp>

#include "agent/daemon/unit.hpp"
#include "hypervisor/domain.hpp"
#include "neighbour.hpp"
