#pragma once
#include "vmrepl/nbd/server.hpp"
