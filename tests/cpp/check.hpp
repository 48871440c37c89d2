// What a C++ test is made of: TEST registers one, EXPECT states what must hold. main.cpp runs them all.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace metaedit::test {

struct Test {
    std::string_view name;
    void (*run)();
};

std::vector<Test>& all_tests();

struct Registered {
    Registered(std::string_view name, void (*run)()) { all_tests().push_back({name, run}); }
};

// Prints the failure and counts it; the test goes on.
void fail(const char* file, int line, const std::string& what);

}  // namespace metaedit::test

#define TEST(name)                                                          \
    static void name();                                                     \
    static const metaedit::test::Registered registered_##name(#name, name); \
    static void name()

// The second argument, a string, tells of which case.
#define EXPECT(condition, of)                                                                          \
    do {                                                                                               \
        if (!(condition)) metaedit::test::fail(__FILE__, __LINE__, #condition ": " + std::string(of)); \
    } while (false)

#define EXPECT_THROWS(expression, Exception, part)                                                                   \
    do {                                                                                                             \
        std::string said = "nothing was thrown";                                                                     \
        try {                                                                                                        \
            (void)(expression);                                                                                      \
        } catch (const Exception& error) {                                                                           \
            said = error.what();                                                                                     \
        }                                                                                                            \
        if (said.find(part) == std::string::npos) {                                                                  \
            metaedit::test::fail(__FILE__, __LINE__, "expected an error with '" + std::string(part) + "', " + said); \
        }                                                                                                            \
    } while (false)
