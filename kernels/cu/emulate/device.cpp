// A device in a process of its own: memory, copies and launches, by messages on stdin and stdout.
//
// The kernels are compiled in with the address and undefined-behaviour sanitizers, so a kernel that leaves
// its memory, or a host that plans a launch wrongly, ends this process with the place and the reason.

#include <sanitizer/asan_interface.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "intrinsics.h"

dim3 threadIdx, blockIdx;

namespace emulate {

struct Entry {
    unsigned threads;
    size_t args;
    void (*body)(const void*);
};

static std::map<std::string, Entry>& kernels() {
    static std::map<std::string, Entry> table;
    return table;
}

Kernel::Kernel(const char* name, unsigned threads, size_t args, void (*body)(const void*)) {
    kernels()[name] = Entry{threads, args, body};
}

struct Copy {
    void* to;
    const void* from;
    bool wanted;
};

// One thread of the block that runs. It yields only where it has to wait.
struct Fiber {
    void* stack_pointer;
    std::vector<char> stack;
    std::vector<Copy> copies;    // started and not waited for, oldest first
    std::vector<size_t> groups;  // how many of them each closed group holds
    const unsigned* waits_for;  // a generation that has to pass `waits_from`
    unsigned waits_from;
    bool done;
};

struct Warp {
    Operands lanes[32];
    Together together;
    unsigned arrived;
    unsigned generation;
};

static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static unsigned current, threads, arrived, generation;
static void* scheduler_stack_pointer;
static const char* kernel_name = "";
static const void* kernel_args;
static void (*kernel_body)(const void*);
static unsigned char* shared_memory;
static bool copies_late;

void fail(const char* what) {
    std::fprintf(stderr, "kernel %s, block (%u, %u), thread %u: %s\n", kernel_name, blockIdx.x, blockIdx.y,
                 threadIdx.x, what);
    std::abort();
}

// Saves this stack's registers, leaves its pointer in `*from` and goes on where `to` was left.
extern "C" void switch_stack(void** from, void* to);

#if defined(__x86_64__)
__asm__(
    ".globl switch_stack\n"
    "switch_stack:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");
constexpr size_t ENTRY_SLOT = 6;  // of the return address
constexpr size_t FRAME = 8;       // keeps the stack aligned to 16 at the entry, after `ret`
#elif defined(__aarch64__)
__asm__(
    ".globl switch_stack\n"
    "switch_stack:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n  ret\n");
constexpr size_t ENTRY_SLOT = 11;  // x30
constexpr size_t FRAME = 20;
#else
#error "the emulation switches stacks on x86-64 and aarch64 only"
#endif

static void wait(const unsigned* generation) {
    Fiber& me = fibers[current];
    me.waits_for = generation;
    me.waits_from = *generation;
    switch_stack(&me.stack_pointer, scheduler_stack_pointer);
}

void barrier() {
    if (++arrived < threads) return wait(&generation);
    arrived = 0;
    generation++;
}

Operands warp(Together together, const Operands& mine) {
    Warp& all = warps[threadIdx.x / 32];
    const unsigned lane = threadIdx.x % 32;
    if (all.arrived && all.together != together) fail("the lanes of a warp do different things together");
    all.together = together;
    all.lanes[lane] = mine;
    if (++all.arrived < 32) {
        wait(&all.generation);
    } else {
        together(all.lanes);
        all.arrived = 0;
        all.generation++;
    }
    // The next operation starts only once this lane has come to it, so its row still stands.
    return all.lanes[lane];
}

unsigned char* shared() { return shared_memory; }

static void arrive(const Copy& copy) {
    if (copy.wanted) {
        std::memcpy(copy.to, copy.from, 16);
    } else {
        std::memset(copy.to, 0, 16);
    }
}

void copy_start(void* to, const void* from, bool wanted) {
    const auto aligned = [](const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; };
    if (!aligned(to) || !aligned(from)) fail("an asynchronous copy is not aligned to 16 bytes");
    const Copy copy{to, from, wanted};
    if (!copies_late) arrive(copy);
    fibers[current].copies.push_back(copy);
}

void copy_group() {
    Fiber& me = fibers[current];
    size_t open = me.copies.size();
    for (size_t closed : me.groups) open -= closed;
    me.groups.push_back(open);
}

void copy_wait(unsigned left) {
    Fiber& me = fibers[current];
    while (me.groups.size() > left) {
        for (size_t i = 0; i < me.groups.front(); i++) {
            if (copies_late) arrive(me.copies[i]);
        }
        me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<long>(me.groups.front()));
        me.groups.erase(me.groups.begin());
    }
}

static void run_fiber() {
    kernel_body(kernel_args);
    Fiber& me = fibers[current];
    if (!me.copies.empty()) fail("the kernel ends with copies on their way");
    me.groups.clear();
    me.done = true;
    switch_stack(&me.stack_pointer, scheduler_stack_pointer);
}

static void start_fiber(Fiber& fiber) {
    constexpr size_t STACK = 256 << 10;
    fiber.stack.resize(STACK);
    const uintptr_t top = (reinterpret_cast<uintptr_t>(fiber.stack.data()) + STACK) & ~uintptr_t{15};
    // `run_fiber` never returned, so the sanitizer still guards its former frame.
    ASAN_UNPOISON_MEMORY_REGION(reinterpret_cast<void*>(top - 4096), 4096);
    void** frame = reinterpret_cast<void**>(top) - FRAME;
    std::memset(frame, 0, FRAME * sizeof(void*));
    frame[ENTRY_SLOT] = reinterpret_cast<void*>(run_fiber);
    fiber.stack_pointer = frame;
    fiber.waits_for = nullptr;
    fiber.done = false;
}

// Runs one warp until all of its lanes wait for the rest of the block.
static unsigned run_warp(unsigned warp, bool backwards) {
    unsigned ended = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (unsigned lane = 0; lane < 32; lane++) {
            current = warp * 32 + (backwards ? 31 - lane : lane);
            Fiber& fiber = fibers[current];
            if (fiber.done || (fiber.waits_for && *fiber.waits_for == fiber.waits_from)) continue;
            fiber.waits_for = nullptr;
            threadIdx = dim3{current, 0, 0};
            switch_stack(&scheduler_stack_pointer, fiber.stack_pointer);
            moved = true;
            ended += fiber.done;
        }
    }
    return ended;
}

// A warp runs as far ahead of the others as barriers let it, another one first from block to block, and
// copies arrive at once in one block and as late as possible in the next: a kernel that lacks a barrier or a
// wait meets an order in which that shows.
static void run_block(unsigned number) {
    for (Fiber& fiber : fibers) start_fiber(fiber);
    for (Warp& warp : warps) warp.arrived = 0;
    arrived = 0;
    copies_late = number % 2 == 0;
    const unsigned count = threads / 32;
    for (unsigned left = threads; left > 0;) {
        const unsigned before = left, passed = generation;
        for (unsigned i = 0; i < count; i++) left -= run_warp((i + number / 2) % count, number / 2 % 2);
        if (left == before && generation == passed) fail("waits for threads that never come");
    }
}

static void launch(const std::string& name, dim3 grid, unsigned block, size_t shared, const std::vector<char>& args) {
    const auto found = kernels().find(name);
    kernel_name = name.c_str();
    if (found == kernels().end()) fail("there is no such kernel");
    if (found->second.threads != block || block % 32) fail("launched with another number of threads");
    if (found->second.args != args.size()) fail("launched with operands of another size");
    if (shared > 227 * 1024) fail("asks for more shared memory than a block can have");
    kernel_body = found->second.body;
    // Operands of their own allocation, at least as aligned as they need be.
    std::vector<std::max_align_t> held(args.size() / sizeof(std::max_align_t) + 1);
    std::memcpy(held.data(), args.data(), args.size());
    kernel_args = held.data();
    threads = block;
    fibers.resize(threads);
    warps.assign(threads / 32, Warp{});
    for (unsigned y = 0; y < grid.y; y++) {
        for (unsigned x = 0; x < grid.x; x++) {
            blockIdx = dim3{x, y, 0};
            // Exactly as large as asked for, so that the sanitizer sees reads behind it; NaN in every format.
            shared_memory = static_cast<unsigned char*>(std::aligned_alloc(16, (shared + 15) / 16 * 16));
            std::memset(shared_memory, 0xff, shared);
            run_block(y * grid.x + x);
            std::free(shared_memory);
        }
    }
}

}  // namespace emulate

static void read_exactly(void* to, size_t count) {
    // The host is gone: so is the device.
    if (count && std::fread(to, 1, count, stdin) != count) std::exit(0);
}

template <typename T>
static T number() {
    T value;
    read_exactly(&value, sizeof value);
    return value;
}

static void answer(const void* from, size_t count) {
    std::fwrite(from, 1, count, stdout);
    std::fflush(stdout);
}

int main() {
    for (;;) {
        switch (number<char>()) {
            case 'a': {
                // As aligned as the device's; exactly as large, so that the sanitizer sees accesses behind it.
                const uint64_t bytes = number<uint64_t>();
                void* memory = nullptr;
                if (posix_memalign(&memory, 256, bytes)) emulate::fail("out of memory");
                std::memset(memory, 0xff, bytes);
                const uint64_t address = reinterpret_cast<uintptr_t>(memory);
                answer(&address, 8);
                break;
            }
            case 'f':
                std::free(reinterpret_cast<void*>(number<uint64_t>()));
                break;
            case 'w': {
                void* to = reinterpret_cast<void*>(number<uint64_t>());
                std::vector<char> bytes(number<uint64_t>());
                read_exactly(bytes.data(), bytes.size());
                std::memcpy(to, bytes.data(), bytes.size());
                break;
            }
            case 'r': {
                const void* from = reinterpret_cast<void*>(number<uint64_t>());
                std::vector<char> bytes(number<uint64_t>());
                std::memcpy(bytes.data(), from, bytes.size());
                answer(bytes.data(), bytes.size());
                break;
            }
            case 'l': {
                std::string name(number<uint64_t>(), ' ');
                read_exactly(&name[0], name.size());
                const unsigned x = number<unsigned>(), y = number<unsigned>();
                const unsigned threads = number<unsigned>(), shared = number<unsigned>();
                std::vector<char> args(number<uint64_t>());
                read_exactly(args.data(), args.size());
                emulate::launch(name, dim3{x, y, 1}, threads, shared, args);
                answer("k", 1);
                break;
            }
            default:
                emulate::fail("an unknown message");
        }
    }
}
