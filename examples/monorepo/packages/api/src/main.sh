. /repo/packages/shared/src/names.sh
echo "api greets $(names)"
