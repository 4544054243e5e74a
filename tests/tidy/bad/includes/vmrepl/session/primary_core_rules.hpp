#pragma once
#include "vmrepl/session/words.hpp"
