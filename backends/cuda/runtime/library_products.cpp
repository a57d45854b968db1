// backends/cuda/device/library_products.h with cuBLASLt, loaded at the first call: nothing else in Tessera
// needs it, and the executable starts where it is missing.
#include "backends/cuda/device/library_products.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

namespace tessera::cuda {

namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;
constexpr size_t kRounds = 3;
constexpr size_t kPasses = 4;  // passes over all copies of the weights

// The library's functions that are used here.
struct Library {
  decltype(&::cublasLtCreate) create = nullptr;
  decltype(&::cublasLtDestroy) destroy = nullptr;
  decltype(&::cublasLtMatmulDescCreate) make_product = nullptr;
  decltype(&::cublasLtMatmulDescDestroy) drop_product = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) set_product = nullptr;
  decltype(&::cublasLtMatrixLayoutCreate) make_layout = nullptr;
  decltype(&::cublasLtMatrixLayoutDestroy) drop_layout = nullptr;
  decltype(&::cublasLtMatmulPreferenceCreate) make_preference = nullptr;
  decltype(&::cublasLtMatmulPreferenceDestroy) drop_preference = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) choose = nullptr;
  decltype(&::cublasLtMatmul) multiply = nullptr;

  bool load() {
    void* library = dlopen(fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) library = dlopen("libcublasLt.so", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return false;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    return find(create, "cublasLtCreate") && find(destroy, "cublasLtDestroy") &&
           find(make_product, "cublasLtMatmulDescCreate") &&
           find(drop_product, "cublasLtMatmulDescDestroy") &&
           find(set_product, "cublasLtMatmulDescSetAttribute") &&
           find(make_layout, "cublasLtMatrixLayoutCreate") &&
           find(drop_layout, "cublasLtMatrixLayoutDestroy") &&
           find(make_preference, "cublasLtMatmulPreferenceCreate") &&
           find(drop_preference, "cublasLtMatmulPreferenceDestroy") &&
           find(set_preference, "cublasLtMatmulPreferenceSetAttribute") &&
           find(choose, "cublasLtMatmulAlgoGetHeuristic") && find(multiply, "cublasLtMatmul");
  }
};

// Null where the library is not installed. It is never unloaded, because it has threads and memory of its
// own.
const Library* library() {
  static const std::unique_ptr<const Library> loaded = [] {
    auto made = std::make_unique<Library>();
    return made->load() ? std::unique_ptr<const Library>(std::move(made)) : nullptr;
  }();
  return loaded.get();
}

template <class Handle, class Drop>
class Owned {
 public:
  explicit Owned(Drop drop) : drop_(drop) {}
  ~Owned() {
    if (handle_ != nullptr) (void)drop_(handle_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Handle* place() { return &handle_; }
  Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
  Drop drop_;
};

// y [tokens, rows] = x [tokens, columns] * w [rows, columns]^T. The library's matrices are column-major: to
// it w is [columns, rows], transposed, x is [columns, tokens] and y [rows, tokens].
class Product {
 public:
  Product(const Library& functions, const ProductShape& shape, unsigned bits)
      : functions_(functions),
        shape_(shape),
        bits_(bits),
        handle_(functions.destroy),
        product_(functions.drop_product),
        w_(functions.drop_layout),
        x_(functions.drop_layout),
        y_(functions.drop_layout),
        preference_(functions.drop_preference) {}

  bool prepare() {
    const bool integer = bits_ == 8;
    const cudaDataType_t input = integer ? CUDA_R_8I : CUDA_R_16F;
    const cudaDataType_t output = integer ? CUDA_R_32I : CUDA_R_16F;
    const auto done = [](cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS; };
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const size_t workspace = kWorkspaceBytes;
    if (!done(functions_.create(handle_.place())) ||
        !done(functions_.make_product(product_.place(), integer ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                      integer ? CUDA_R_32I : CUDA_R_32F)) ||
        !done(functions_.set_product(product_.get(), CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                     sizeof transposed)) ||
        !done(functions_.make_layout(w_.place(), input, shape_.columns, shape_.rows,
                                     static_cast<int64_t>(shape_.columns))) ||
        !done(functions_.make_layout(x_.place(), input, shape_.columns, shape_.tokens,
                                     static_cast<int64_t>(shape_.columns))) ||
        !done(functions_.make_layout(y_.place(), output, shape_.rows, shape_.tokens,
                                     static_cast<int64_t>(shape_.rows))) ||
        !done(functions_.make_preference(preference_.place())) ||
        !done(functions_.set_preference(preference_.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                        &workspace, sizeof workspace)))
      return false;
    int found = 0;
    return done(functions_.choose(handle_.get(), product_.get(), w_.get(), x_.get(), y_.get(), y_.get(),
                                  preference_.get(), 1, &chosen_, &found)) &&
           found == 1;
  }

  bool run(const std::byte* w, const std::byte* x, std::byte* y, std::byte* workspace, cudaStream_t stream) {
    const int32_t whole[2] = {1, 0};
    const float real[2] = {1.0f, 0.0f};
    const void* one = bits_ == 8 ? static_cast<const void*>(&whole[0]) : &real[0];
    const void* zero = bits_ == 8 ? static_cast<const void*>(&whole[1]) : &real[1];
    return functions_.multiply(handle_.get(), product_.get(), one, w, w_.get(), x, x_.get(), zero, y,
                               y_.get(), y, y_.get(), &chosen_.algo, workspace, kWorkspaceBytes,
                               stream) == CUBLAS_STATUS_SUCCESS;
  }

 private:
  const Library& functions_;
  ProductShape shape_;
  unsigned bits_;
  Owned<cublasLtHandle_t, decltype(Library::destroy)> handle_;
  Owned<cublasLtMatmulDesc_t, decltype(Library::drop_product)> product_;
  Owned<cublasLtMatrixLayout_t, decltype(Library::drop_layout)> w_;
  Owned<cublasLtMatrixLayout_t, decltype(Library::drop_layout)> x_;
  Owned<cublasLtMatrixLayout_t, decltype(Library::drop_layout)> y_;
  Owned<cublasLtMatmulPreference_t, decltype(Library::drop_preference)> preference_;
  cublasLtMatmulHeuristicResult_t chosen_{};
};

size_t cache_bytes() {
  int bytes = 0;
  if (cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, 0) != cudaSuccess) return 0;
  return static_cast<size_t>(bytes);
}

}  // namespace

std::optional<double> library_seconds(Queue& queue, const ProductShape& shape, unsigned bits) {
  if (library() == nullptr) return std::nullopt;
  Product product(*library(), shape, bits);
  if (!product.prepare()) return std::nullopt;
  const size_t element = bits / 8;
  const size_t matrix = shape.rows * shape.columns * element;
  const size_t copies = 2 * cache_bytes() / matrix + 1;
  auto weights = DeviceMemory::allocate(copies * matrix);
  auto x = DeviceMemory::allocate(shape.tokens * shape.columns * element);
  auto y = DeviceMemory::allocate(shape.tokens * shape.rows * 4);
  auto workspace = DeviceMemory::allocate(kWorkspaceBytes);
  for (const auto* memory : {&weights, &x, &y, &workspace}) {
    if (!memory->ok()) return std::nullopt;
  }
  queue.fill(weights.value().address(), 0, copies * matrix);
  queue.fill(x.value().address(), 0, x.value().size());
  const auto stream = static_cast<cudaStream_t>(queue.stream());
  std::optional<double> best;
  for (size_t round = 0; round <= kRounds; ++round) {  // the first one, which loads kernels, does not count
    if (!queue.finish().ok()) return std::nullopt;
    const auto begun = std::chrono::steady_clock::now();
    for (size_t i = 0; i < kPasses * copies; ++i) {
      if (!product.run(weights.value().address() + i % copies * matrix, x.value().address(),
                       y.value().address(), workspace.value().address(), stream))
        return std::nullopt;
    }
    if (!queue.finish().ok()) return std::nullopt;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    const double each = seconds / static_cast<double>(kPasses * copies);
    if (round > 0) best = std::min(each, best.value_or(each));
  }
  return best;
}

}  // namespace tessera::cuda

#else  // the toolkit has no cuBLASLt

namespace tessera::cuda {

std::optional<double> library_seconds(Queue&, const ProductShape&, unsigned) { return std::nullopt; }

}  // namespace tessera::cuda

#endif
