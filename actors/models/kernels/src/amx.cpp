// The right to use tiles: Linux keeps their 8 KB out of a process's state until it asks (arch_prctl(2)).
#include "amx.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

namespace strata {
namespace {

constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA (asm/prctl.h)
std::atomic<bool> wanted{true};

bool granted() {
#ifdef STRATA_AMX
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

bool amx() {
  static const bool there = granted();
  return there && wanted.load(std::memory_order_relaxed);
}

void use_amx(bool on) { wanted = on; }

}  // namespace strata
